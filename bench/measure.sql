-- Runs :warm_up, then :calls, which gives the number of tokens that it got.
-- Prints, separated by commas: the microseconds that :calls took, its user time and
-- its system time (their sum is exact, each is accurate to 10 ms); and, in KiB, the
-- process's greatest memory meanwhile, and its own memory at the end.
SELECT :warm_up \g /dev/null
COPY (SELECT 5) TO '/proc/self/clear_refs';     -- forgets the greatest so far
SELECT cpu_us, user_ticks, system_ticks FROM process \gset before_
WITH done AS MATERIALIZED (SELECT :calls AS tokens)
SELECT round(extract(epoch FROM clock_timestamp() - statement_timestamp()) * 1000000) AS us,
       tokens = :n AS complete
  FROM done \gset
SELECT * FROM process \gset
\if :complete
SELECT concat_ws(',', :us, round(cpu * user_part), round(cpu * (1 - user_part)),
                 :peak_kib, :private_kib)
  FROM (SELECT :cpu_us - :before_cpu_us AS cpu, :user_ticks - :before_user_ticks AS u,
               :system_ticks - :before_system_ticks AS s) AS d,
       coalesce(u / nullif(u + s, 0), 0.5) AS user_part;
\else
DO $$BEGIN RAISE 'not all tokens came'; END$$;
\endif
