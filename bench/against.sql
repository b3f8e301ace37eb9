-- Two builds side by side: the medians of both, and the median, least and greatest
-- of the rounds' ratios.  The greatest memory includes pages of files, and more of
-- these may be resident in one copy than in the other.
\set QUIET on
\pset linestyle ascii
CREATE TEMP TABLE against (
    round int, protocol text, build text, concurrency int, calls int,
    us float8, user_us float8, system_us float8, peak_kib float8, private_kib float8);
\copy against FROM against.csv CSV HEADER

CREATE TEMP VIEW figure AS
SELECT round, protocol, build, concurrency, f.*
  FROM (SELECT round, protocol, build, concurrency, sum(us) / sum(calls) AS us,
               sum(user_us + system_us) / sum(calls) AS cpu_us,
               avg(peak_kib) AS peak_kib, avg(private_kib) AS private_kib
          FROM against GROUP BY round, protocol, build, concurrency) AS r,
       LATERAL (VALUES (1, 'time, us', us), (2, 'CPU, user and system, us', cpu_us),
                       (3, 'greatest memory, KiB', peak_kib),
                       (4, 'own memory at the end, KiB', private_kib)) AS f (place, what, figure);

\echo
\echo Old is :old, new is this tree.  Per call; medians of the rounds.
SELECT CASE concurrency WHEN 1 THEN 'one call' ELSE 'batches of ' || concurrency END AS calls,
       protocol, what,
       round(percentile_cont(0.5) WITHIN GROUP (ORDER BY o.figure)::numeric, 1) AS old,
       round(percentile_cont(0.5) WITHIN GROUP (ORDER BY n.figure)::numeric, 1) AS new,
       format('%s (%s..%s)',
              round(percentile_cont(0.5) WITHIN GROUP (ORDER BY n.figure / o.figure)::numeric, 3),
              round(min(n.figure / o.figure)::numeric, 3),
              round(max(n.figure / o.figure)::numeric, 3)) AS "new / old"
  FROM figure o JOIN figure n USING (round, protocol, concurrency, place, what)
  JOIN unnest(ARRAY['plain', 'tls', 'http2']) WITH ORDINALITY AS p (protocol, protocol_place)
       USING (protocol)
 WHERE o.build = 'old' AND n.build = 'new'
 GROUP BY concurrency, protocol, protocol_place, place, what
 ORDER BY concurrency, protocol_place, place;
