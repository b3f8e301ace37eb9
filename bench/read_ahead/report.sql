-- Evaluates the raw figures in the current directory: medians, with the least and
-- the greatest beside them, and the targets.  Also writes what the chart shows.
\set QUIET on
\pset linestyle ascii
CREATE TEMP TABLE form (
    place int GENERATED ALWAYS AS IDENTITY, round int, form text, concurrency int, tokens int, us float8);
CREATE TEMP TABLE cpu (
    round int, what text, candidate text, calls int,
    us float8, user_us float8, system_us float8, peak_kib int, private_kib int);
\copy form (round, form, concurrency, tokens, us) FROM read_ahead.csv CSV HEADER
\copy cpu FROM read_ahead_cpu.csv CSV HEADER

CREATE FUNCTION pg_temp.spread(figures float8[], digits int) RETURNS text LANGUAGE sql
    RETURN (SELECT format('%s (%s..%s)',
                          round((percentile_cont(0.5) WITHIN GROUP (ORDER BY f))::numeric, digits),
                          round(min(f)::numeric, digits), round(max(f)::numeric, digits))
              FROM unnest(figures) f HAVING count(f) > 0);

-- Each form compared with the array function in the same round.
CREATE TEMP VIEW ratio AS
SELECT f.*, f.us / f.tokens / (a.us / a.tokens) AS ratio
  FROM form f JOIN form a USING (round, concurrency) WHERE a.form = 'array function';
CREATE TEMP VIEW summary AS
SELECT min(place) AS place, form, concurrency, pg_temp.spread(array_agg(us / tokens), 0) AS us,
       pg_temp.spread(array_agg(ratio), 3) AS ratio,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY ratio) AS median
  FROM ratio GROUP BY form, concurrency;
-- CPU of one call, or query, in each round.
CREATE TEMP VIEW cpu_round AS
SELECT round, what, candidate, sum(user_us + system_us) / sum(calls) AS us
  FROM cpu GROUP BY round, what, candidate;
CREATE TEMP VIEW cpu_pair AS
SELECT w.round, what, w.us, o.us AS other_us
  FROM cpu_round w JOIN cpu_round o USING (round, what)
 WHERE (w.candidate, o.candidate) IN (('on', 'off'), ('with', 'without'));

\echo
\echo Medians, in brackets the least and the greatest.
\echo
\echo Rows whose calls take 50 ms, as times of the array function:
SELECT form,
       max(ratio) FILTER (WHERE concurrency = 16) AS "16 in flight",
       max(ratio) FILTER (WHERE concurrency = 64) AS "64",
       max(ratio) FILTER (WHERE concurrency = 256) AS "256"
  FROM summary GROUP BY form ORDER BY min(place);
\echo The same, microseconds per row:
SELECT form,
       max(us) FILTER (WHERE concurrency = 16) AS "16 in flight",
       max(us) FILTER (WHERE concurrency = 64) AS "64",
       max(us) FILTER (WHERE concurrency = 256) AS "256"
  FROM summary GROUP BY form ORDER BY min(place);
\echo One by one:
SELECT form, pg_temp.spread(array_agg(us / tokens), 0) AS "us per row"
  FROM form WHERE concurrency = 1 GROUP BY form;
\echo CPU, microseconds:
SELECT what, pg_temp.spread(array_agg(other_us), 2) AS "without, or off",
       pg_temp.spread(array_agg(us), 2) AS "with, or on",
       pg_temp.spread(array_agg(us - other_us), 2) AS difference,
       pg_temp.spread(array_agg(us / other_us), 3) AS ratio
  FROM cpu_pair GROUP BY what ORDER BY what DESC;

\echo Targets:
SELECT target, measured, CASE WHEN met THEN 'yes' ELSE 'NO' END AS met
  FROM (SELECT 1 AS place,
               format('each form, %s in flight: at most 1.1 times the array function', concurrency) AS target,
               format('%s (%s)', round(max(median)::numeric, 3),
                      (array_agg(form ORDER BY median DESC))[1]) AS measured,
               max(median) <= 1.1 AS met
          FROM summary WHERE form <> 'array function' GROUP BY concurrency
        UNION ALL
        SELECT 2, 'one row: at most 3 us more CPU', pg_temp.spread(array_agg(us - other_us), 2),
               percentile_cont(0.5) WITHIN GROUP (ORDER BY us - other_us) <= 3
          FROM cpu_pair WHERE what = 'one row'
        UNION ALL
        SELECT 3, 'other queries: at most 1.02 times the CPU', pg_temp.spread(array_agg(us / other_us), 3),
               percentile_cont(0.5) WITHIN GROUP (ORDER BY us / other_us) <= 1.02
          FROM cpu_pair WHERE what LIKE 'another query%') AS t
 ORDER BY place, length(target), target;

\pset tuples_only on
\pset format unaligned
\pset fieldsep '\t'
\o read_ahead.dat
SELECT form, max(speed) FILTER (WHERE concurrency = 16), max(speed) FILTER (WHERE concurrency = 64),
       max(speed) FILTER (WHERE concurrency = 256), max(speed) FILTER (WHERE concurrency = 1)
  FROM (SELECT form, concurrency, min(place) AS place,
               1000000 / percentile_cont(0.5) WITHIN GROUP (ORDER BY us / tokens) AS speed
          FROM form GROUP BY form, concurrency) s
 GROUP BY form ORDER BY min(place);
\o
