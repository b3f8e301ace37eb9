-- Evaluates the raw figures of script/outage in the current directory: medians of
-- the rounds, and the targets.  Also writes what the chart shows (outage.dat), and
-- the targets that are missed, if any (missed).
\set QUIET on
\pset linestyle ascii
\pset null -

CREATE TEMP TABLE run (
	round int, scenario text, guard text, seconds numeric, cheap_healthy numeric, cheap_outage numeric,
	percent numeric, healthy_p50 numeric, healthy_p99 numeric, outage_p50 numeric, outage_p99 numeric,
	oldest numeric, second numeric, calls int, requests int, tokens int, polite int, late_tokens int,
	failing numeric, first_token numeric);
CREATE TEMP TABLE inserts (
	round int, scenario text, guard text, sqlstate text, calls int, median numeric, p99 numeric);
CREATE TEMP TABLE seconds (
	round int, scenario text, guard text, second int, cheap int, tokens int, requests int);
\copy run FROM outage.csv CSV HEADER
\copy inserts FROM outage_inserts.csv CSV HEADER
\copy seconds FROM outage_seconds.csv CSV HEADER

-- Scenarios and sides are shown in the order of the first round.
CREATE TEMP TABLE place AS
SELECT scenario, guard, row_number() OVER () AS place FROM run WHERE round = 1;

CREATE FUNCTION pg_temp.median(figures numeric[], digits int DEFAULT 1) RETURNS numeric LANGUAGE sql
	RETURN (SELECT round((percentile_cont(0.5) WITHIN GROUP (ORDER BY f))::numeric, digits) FROM unnest(figures) f);

\echo
\echo Cheap transactions, before and during the outage:
SELECT scenario, guard, pg_temp.median(array_agg(percent)) AS "throughput, %",
       pg_temp.median(array_agg(healthy_p50)) AS "p50 before, ms", pg_temp.median(array_agg(outage_p50)) AS "during",
       pg_temp.median(array_agg(healthy_p99)) AS "p99 before, ms", pg_temp.median(array_agg(outage_p99)) AS "during",
       pg_temp.median(array_agg(oldest)) AS "oldest transaction, s",
       pg_temp.median(array_agg(second)) AS "second oldest"
  FROM run JOIN place USING (scenario, guard) GROUP BY scenario, guard, place ORDER BY place;

\echo The API during the outage:
SELECT scenario, guard, pg_temp.median(array_agg(calls), 0) AS calls,
       pg_temp.median(array_agg(requests), 0) AS requests,
       pg_temp.median(array_agg(requests / nullif(calls, 0)::numeric), 2) AS "requests per call",
       pg_temp.median(array_agg(tokens / seconds)) AS "tokens per second",
       pg_temp.median(array_agg(polite / seconds)) AS "a polite client's",
       pg_temp.median(array_agg(first_token), 2) AS "first token after its return, s"
  FROM run JOIN place USING (scenario, guard) GROUP BY scenario, guard, place ORDER BY place;

\echo What the inserts see during the outage:
SELECT scenario, guard, CASE sqlstate WHEN '00000' THEN 'token' ELSE sqlstate END AS outcome,
       pg_temp.median(array_agg(calls), 0) AS calls, pg_temp.median(array_agg(median), 2) AS "median, ms",
       pg_temp.median(array_agg(p99), 2) AS "p99, ms"
  FROM inserts JOIN place USING (scenario, guard)
 GROUP BY scenario, guard, sqlstate, place ORDER BY place, sqlstate;

CREATE TEMP VIEW guarded AS
SELECT scenario, place, pg_temp.median(array_agg(percent)) AS percent,
       pg_temp.median(array_agg(outage_p99)) AS p99,
       pg_temp.median(array_agg(oldest), 2) AS oldest, pg_temp.median(array_agg(second), 2) AS second,
       pg_temp.median(array_agg(requests), 0) AS requests,
       pg_temp.median(array_agg(floor(16 + 1.3 * seconds)), 0) AS allowed,
       pg_temp.median(array_agg(requests / nullif(calls, 0)::numeric), 2) AS per_call,
       pg_temp.median(array_agg(100.0 * tokens / polite)) AS of_polite,
       pg_temp.median(array_agg(late_tokens), 0) AS late_tokens,
       pg_temp.median(array_agg(failing), 2) AS failing,
       pg_temp.median(array_agg(first_token), 2) AS first_token
  FROM run JOIN place USING (scenario, guard) WHERE guard = 'with' GROUP BY scenario, place;

-- A probe may take sw_guest_token.timeout, 10 s, and the oldest transaction may be one.
CREATE TEMP TABLE target AS
SELECT place, part, scenario || ': ' || target AS target, measured, met
  FROM guarded, LATERAL (VALUES
       (1, scenario IN ('black-hole', 'slow', 'half-hanging') OR scenario LIKE '429-%',
        'cheap transactions at least 95 %', percent || ' %', percent >= 95),
       (1, scenario = 'hot-row', 'cheap transactions at least 90 %', percent || ' %', percent >= 90),
       (2, scenario = 'black-hole', 'their p99 at most 250 ms', p99 || ' ms', p99 <= 250),
       (3, scenario = 'black-hole', 'transactions at most 1.5 s old, one probe 10.5 s',
        format('%s s, %s s', second, oldest), second <= 1.5 AND oldest <= 10.5),
       (4, scenario = 'black-hole', format('at most %s requests (16, and 1.3 a second)', allowed),
        requests::text, requests <= allowed),
       (5, scenario = 'black-hole', 'a token at most 1.5 s after its return', first_token || ' s',
        first_token <= 1.5),
       (6, scenario IN ('503-retry-after', '503', 'refused'), 'at most 0.1 requests per call',
        per_call::text, per_call <= 0.1),
       (7, scenario IN ('503-retry-after', '503', 'refused'), 'failing calls take at most 1 ms',
        failing || ' ms', failing <= 1),
       (8, scenario LIKE '429-%', 'at most 1.1 requests per call', per_call::text, per_call <= 1.1),
       (9, scenario LIKE '429-%', 'at least 95 % of what a polite client gets',
        of_polite || ' %', of_polite >= 95),
       (10, scenario = 'slow', 'tokens again after 20 s', late_tokens || ' tokens', late_tokens > 0)
       ) AS t (part, applies, target, measured, met)
 WHERE applies;

\echo Targets:
SELECT target, coalesce(measured, 'not measured') AS measured, CASE WHEN met THEN 'yes' ELSE 'NO' END AS met
  FROM target ORDER BY place, part;

\pset tuples_only on
\pset format unaligned
\pset fieldsep '\t'
\o missed
SELECT target FROM target WHERE met IS NOT TRUE;
\o outage.dat
SELECT second, pg_temp.median(array_agg(cheap) FILTER (WHERE guard = 'without')),
       pg_temp.median(array_agg(cheap) FILTER (WHERE guard = 'with')),
       (SELECT max(round(seconds)) FROM run WHERE scenario = 'black-hole')
  FROM seconds WHERE scenario = 'black-hole' GROUP BY second ORDER BY second;
\o
