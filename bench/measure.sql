-- Runs :warm_up, then :calls, which gives the number of tokens that it got.
-- Prints, with commas between: the microseconds that the latter took, those of
-- user time, those of system time; and of the process in KiB its greatest memory
-- meanwhile, and what it has for itself at the end.
SELECT :warm_up \g /dev/null
COPY (SELECT 5) TO '/proc/self/clear_refs';     -- forgets the greatest so far
SELECT user_us, system_us FROM process \gset before_
WITH done AS MATERIALIZED (SELECT :calls AS tokens)
SELECT round(extract(epoch FROM clock_timestamp() - statement_timestamp()) * 1000000) AS us,
       tokens = :n AS complete
  FROM done \gset
SELECT * FROM process \gset
\if :complete
SELECT concat_ws(',', :us, :user_us - :before_user_us, :system_us - :before_system_us,
                 :peak_kib, :private_kib);
\else
DO $$BEGIN RAISE 'not all tokens came'; END$$;
\endif
