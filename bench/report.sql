-- Evaluates the raw figures in the current directory: medians, with the least and
-- the greatest beside them, and the targets.  Also writes what the charts show.
\set QUIET on
\pset linestyle ascii
SET client_min_messages = warning;

CREATE TEMP TABLE call (
    round int, protocol text, candidate text, concurrency int, calls int,
    us float8, user_us float8, system_us float8, peak_kib int, private_kib int);
CREATE TEMP TABLE one_call (LIKE call);
CREATE TEMP TABLE many_calls (LIKE call);
CREATE TEMP TABLE growth (LIKE call);
CREATE TEMP TABLE sessions (round int, protocol text, clients int, calls_per_second float8);
CREATE TEMP TABLE first_call (round int, protocol text, candidate text, us float8);
CREATE TEMP TABLE connection (round int, preloading text, ms float8);
CREATE TEMP TABLE backend_memory (
    round int, preloading text, moment text, share_kib int, private_kib int);
CREATE TEMP TABLE system_calls (
    protocol text, candidate text, system_call text, per_token float8);
CREATE TEMP TABLE machine (what text, value text);
\copy one_call FROM one_call.csv CSV HEADER
\copy many_calls FROM many_calls.csv CSV HEADER
\copy growth FROM growth.csv CSV HEADER
\copy sessions FROM sessions.csv CSV HEADER
\copy first_call FROM first_call.csv CSV HEADER
\copy connection FROM connection.csv CSV HEADER
\copy backend_memory FROM backend_memory.csv CSV HEADER
\copy system_calls FROM system_calls.csv CSV HEADER
\copy machine FROM machine.csv CSV HEADER

-- The order in which candidates and protocols are shown.
CREATE TEMP TABLE candidate AS
    SELECT * FROM unnest(ARRAY['floor', 'extension', 'extension (api_token)', 'pgsql-http',
        'PL/Python', 'PL/pgSQL']) WITH ORDINALITY AS c (candidate, place);
CREATE TEMP TABLE protocol AS
    SELECT * FROM unnest(ARRAY['plain', 'tls', 'http2']) WITH ORDINALITY AS p (protocol, place);

CREATE FUNCTION pg_temp.median(figures float8[]) RETURNS float8 LANGUAGE sql
    RETURN (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY f) FROM unnest(figures) f);
CREATE FUNCTION pg_temp.spread(figures float8[], digits int) RETURNS text LANGUAGE sql
    RETURN (SELECT format('%s (%s..%s)', round(pg_temp.median(figures)::numeric, digits),
                          round(min(f)::numeric, digits), round(max(f)::numeric, digits))
              FROM unnest(figures) f HAVING count(f) > 0);

-- Each figure compared with the floor's, or with the ideal, in the same round.
CREATE TEMP VIEW one_call_round AS
SELECT round, protocol, candidate, sum(us) / sum(calls) AS us,
       sum(user_us) / sum(calls) AS user_us, sum(system_us) / sum(calls) AS system_us
  FROM one_call GROUP BY round, protocol, candidate;
CREATE TEMP VIEW one_call_ratio AS
SELECT c.*, c.us / f.us AS ratio
  FROM one_call_round c JOIN one_call_round f USING (round, protocol)
 WHERE f.candidate = 'floor';
CREATE TEMP VIEW many_calls_share AS
SELECT *, 100.0 * calls / concurrency * 50000 / us AS share FROM many_calls;
CREATE TEMP VIEW first_call_median AS
SELECT round, protocol, candidate, pg_temp.median(array_agg(us)) AS us
  FROM first_call GROUP BY round, protocol, candidate;
-- A session's first statement takes extra time, whatever it does.
CREATE TEMP VIEW first_call_beyond AS
SELECT round, protocol, (e.us - f.us - s.us) / 1000 AS beyond_both
  FROM first_call_median e JOIN first_call_median f USING (round, protocol)
  JOIN first_call_median s USING (round, protocol)
 WHERE (e.candidate, f.candidate, s.candidate) = ('preloaded', 'floor', 'no call');
CREATE TEMP VIEW growth_median AS
SELECT calls, candidate, pg_temp.median(array_agg(peak_kib)) AS peak_kib
  FROM growth GROUP BY calls, candidate;

\echo
SELECT string_agg(what || ' ' || value, ', ') AS machine FROM machine \gset
\echo :machine
\echo Medians, in brackets the least and the greatest.

\echo
\echo One call after the other, microseconds per call:
SELECT protocol, candidate, pg_temp.spread(array_agg(us), 1) AS "time",
       pg_temp.spread(array_agg(ratio), 2) AS "times the floor",
       round(pg_temp.median(array_agg(user_us))::numeric, 1) AS "CPU, user",
       round(pg_temp.median(array_agg(system_us))::numeric, 1) AS "CPU, system",
       (SELECT round(sum(per_token)::numeric, 1) FROM system_calls s
         WHERE (s.protocol, s.candidate) = (r.protocol, r.candidate)) AS "system calls"
  FROM one_call_ratio r JOIN candidate c USING (candidate) JOIN protocol p USING (protocol)
 GROUP BY protocol, candidate, p.place, c.place ORDER BY p.place, c.place;

\echo Many calls of 50 ms, calls per second:
SELECT protocol, candidate, concurrency, round(20 * concurrency) AS ideal,
       pg_temp.spread(array_agg(calls / us * 1000000), 0) AS measured,
       pg_temp.spread(array_agg(share), 1) AS "percent of the ideal"
  FROM many_calls_share r JOIN candidate c USING (candidate) JOIN protocol p USING (protocol)
 GROUP BY protocol, candidate, concurrency, p.place, c.place
 ORDER BY concurrency, p.place, c.place;

\echo Many sessions, calls per second:
SELECT clients,
       pg_temp.spread(array_agg(calls_per_second) FILTER (WHERE protocol = 'plain'), 0) AS plain,
       pg_temp.spread(array_agg(calls_per_second) FILTER (WHERE protocol = 'tls'), 0) AS tls,
       pg_temp.spread(array_agg(calls_per_second) FILTER (WHERE protocol = 'http2'), 0) AS http2
  FROM sessions GROUP BY clients ORDER BY clients;

\echo The first call of a session, milliseconds:
SELECT c.protocol,
       pg_temp.spread(array_agg(us / 1000) FILTER (WHERE candidate = 'floor'), 2) AS floor,
       pg_temp.spread(array_agg(us / 1000) FILTER (WHERE candidate = 'preloaded'), 2) AS preloaded,
       pg_temp.spread(array_agg(us / 1000) FILTER (WHERE candidate = 'not preloaded'), 2) AS "not preloaded",
       pg_temp.spread(array_agg(us / 1000) FILTER (WHERE candidate = 'no call'), 2) AS "a statement without a call",
       (SELECT pg_temp.spread(array_agg(beyond_both), 2) FROM first_call_beyond b
         WHERE b.protocol = c.protocol) AS "preloaded, beyond both"
  FROM first_call c JOIN protocol p USING (protocol) GROUP BY c.protocol, p.place ORDER BY p.place;

\echo What preloading costs a session:
SELECT preloading,
       (SELECT pg_temp.spread(array_agg(ms), 3) FROM connection c
         WHERE c.preloading = m.preloading) AS "connecting, ms",
       pg_temp.spread(array_agg(private_kib) FILTER (WHERE moment = 'idle'), 0) AS "idle: own KiB",
       pg_temp.spread(array_agg(share_kib) FILTER (WHERE moment = 'idle'), 0) AS "PSS",
       pg_temp.spread(array_agg(private_kib) FILTER (WHERE moment = 'after a call'), 0) AS "after a TLS call: own KiB",
       pg_temp.spread(array_agg(share_kib) FILTER (WHERE moment = 'after a call'), 0) AS "PSS"
  FROM backend_memory m GROUP BY preloading ORDER BY preloading;

\echo Batches as they grow, 16 requests in flight:
SELECT calls AS requests,
       pg_temp.spread(array_agg(us / calls) FILTER (WHERE candidate = 'extension'), 1) AS "us per request",
       pg_temp.spread(array_agg(peak_kib) FILTER (WHERE candidate = 'extension'), 0) AS "peak KiB",
       pg_temp.spread(array_agg(peak_kib) FILTER (WHERE candidate = 'array only'), 0) AS "of the array only",
       pg_temp.spread(array_agg(private_kib) FILTER (WHERE candidate = 'extension'), 0) AS "own KiB afterwards"
  FROM growth GROUP BY calls ORDER BY calls;

-- For each target: what was measured, and whether it is met.  PostgreSQL keeps up to
-- work_mem (4 MiB) of a function's rows in memory: about 3000 pairs of tokens.
CREATE TEMP VIEW target AS
SELECT 1 AS part, p.place, format('one call, %s: at most 1.10 times the floor', protocol) AS target,
       pg_temp.spread(array_agg(ratio), 2) AS measured,
       pg_temp.median(array_agg(ratio)) <= 1.10 AS met
  FROM one_call_ratio JOIN protocol p USING (protocol) WHERE candidate = 'extension'
 GROUP BY protocol, p.place
UNION ALL
SELECT 2, p.place, format('one call, %s: at most 0.50 times pgsql-http', e.protocol),
       pg_temp.spread(array_agg(e.us / h.us), 2), pg_temp.median(array_agg(e.us / h.us)) <= 0.50
  FROM one_call_round e JOIN protocol p ON p.protocol = e.protocol
  LEFT JOIN one_call_round h ON h.candidate = 'pgsql-http' AND (h.round, h.protocol) = (e.round, e.protocol)
 WHERE e.candidate = 'extension' GROUP BY e.protocol, p.place
UNION ALL
SELECT 3, concurrency, format('batch, %s, %s in flight: at least %s %% of the ideal', protocol,
                              concurrency, CASE WHEN concurrency > 64 THEN 90 ELSE 95 END),
       pg_temp.spread(array_agg(e.share), 1)
           || '; floor ' || round(pg_temp.median(array_agg(f.share))::numeric, 1),
       pg_temp.median(array_agg(e.share)) >= CASE WHEN concurrency > 64 THEN 90 ELSE 95 END
  FROM many_calls_share e JOIN many_calls_share f USING (round, protocol, concurrency)
 WHERE (e.candidate, f.candidate) = ('extension', 'floor') GROUP BY protocol, concurrency
UNION ALL
SELECT 4, 1, format('batch: from %s to %s requests at most work_mem more', low, high),
       format('%s of %s KiB', round(high_kib - low_kib), 4096), high_kib - low_kib <= 4096
  FROM (SELECT e.calls AS high, e.peak_kib - a.peak_kib AS high_kib,
               lag(e.calls, 2) OVER w AS low, lag(e.peak_kib - a.peak_kib, 2) OVER w AS low_kib
          FROM growth_median e JOIN growth_median a USING (calls)
         WHERE e.candidate = 'extension' AND a.candidate = 'array only'
        WINDOW w AS (ORDER BY e.calls) ORDER BY e.calls DESC LIMIT 1) AS growth
UNION ALL
SELECT 5, p.place, format('first call, %s: at most 2 ms more than the floor and a statement', protocol),
       pg_temp.spread(array_agg(beyond_both), 2) || ' ms', pg_temp.median(array_agg(beyond_both)) <= 2
  FROM first_call_beyond JOIN protocol p USING (protocol) GROUP BY protocol, p.place
UNION ALL
SELECT 6, place, 'connecting: no difference between preloaded and ' || other,
       pg_temp.spread(array_agg(difference * 1000), 0) || ' us',
       min(difference) <= 0 AND max(difference) >= 0
  FROM (VALUES (1, 'not preloaded'), (2, 'libcurl alone')) AS o (place, other),
       LATERAL (SELECT avg(ms) FILTER (WHERE preloading = 'preloaded')
                       - avg(ms) FILTER (WHERE preloading = other) AS difference
                  FROM connection GROUP BY round) AS connection
 GROUP BY place, other;

\echo Targets:
SELECT target, coalesce(measured, 'not measured') AS measured,
       CASE WHEN met THEN 'yes' WHEN NOT met THEN 'NO' ELSE '-' END AS met
  FROM target ORDER BY part, place, target;

\pset tuples_only on
\pset format unaligned
\pset fieldsep '\t'
\o one_call.dat
SELECT p.place, c.place, pg_temp.median(array_agg(us)), min(us), max(us)
  FROM one_call_round JOIN candidate c USING (candidate) JOIN protocol p USING (protocol)
 GROUP BY p.place, c.place ORDER BY c.place, p.place;
\o many_calls.dat
SELECT candidate || ' ' || protocol, concurrency,
       pg_temp.median(array_agg(calls / us * 1000000)), min(calls / us * 1000000), max(calls / us * 1000000)
  FROM many_calls GROUP BY protocol, candidate, concurrency ORDER BY protocol, candidate, concurrency;
\o growth.dat
SELECT candidate, calls, pg_temp.median(array_agg(peak_kib)) / 1024,
       min(peak_kib) / 1024.0, max(peak_kib) / 1024.0
  FROM growth GROUP BY candidate, calls ORDER BY candidate, calls;
\o
