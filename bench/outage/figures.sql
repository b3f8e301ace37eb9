-- The figures of one run of script/outage, from what its programs have logged:
-- appends to the CSV files in the current directory.
\set run :round ',' :scenario ',' :guard
\pset fieldsep ','
CREATE TEMP TABLE api (at float8, what text);
CREATE TEMP TABLE cheap_log (
	client int, transaction int, us bigint, script int, s bigint, s_us int, lag_us bigint);
CREATE TEMP TABLE insert_log (LIKE cheap_log);
\copy api FROM ../run/api.csv CSV
\copy cheap_log FROM ../run/cheap.log (DELIMITER ' ')
\copy insert_log FROM ../run/insert.log (DELIMITER ' ')

-- All times are in seconds, counted from the API's switch to the outage.
SELECT min(at) AS began FROM api WHERE what = 'mode ' || :'scenario' \gset
SELECT min(at) - :began AS outage FROM api WHERE what = 'mode healthy' AND at > :began \gset
CREATE TEMP VIEW phase AS
SELECT * FROM (VALUES ('healthy', -:healthy, 0), ('outage', 0, :outage)) AS p (phase, low, high);
CREATE TEMP VIEW event AS SELECT at - :began AS at, what FROM api;
-- pgbench's latency begins when a transaction is due, not when a client is free.
CREATE TEMP VIEW cheap AS
SELECT ended - us / 1e6 AS due, ended, us / 1e3 AS ms
  FROM cheap_log, LATERAL (SELECT s + s_us / 1e6 - :began AS ended) AS e;
CREATE TEMP VIEW insert AS
SELECT extract(epoch FROM began) - :began AS began, extract(epoch FROM ended) - :began AS ended, sqlstate,
       extract(epoch FROM ended - began) * 1000 AS ms
  FROM call;

-- Arrivals vary by chance, so throughput is compared as a share of what was due.
-- Transactions that never began, because all clients waited to the end, are in no
-- log.  pgbench begins transactions in the order in which they are due, so the rate
-- tells how many were due after the last one.
SELECT max(due) AS last_due FROM cheap \gset
CREATE TEMP VIEW cheap_phase AS
SELECT phase, count(*) FILTER (WHERE ended BETWEEN low AND high) AS done,
       count(*) FILTER (WHERE due BETWEEN low AND high) + :rate * greatest(high - :last_due, 0) AS due,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY ms) FILTER (WHERE due BETWEEN low AND high) AS p50,
       percentile_cont(0.99) WITHIN GROUP (ORDER BY ms) FILTER (WHERE due BETWEEN low AND high) AS p99
  FROM phase, cheap GROUP BY phase, high;

-- What the rate limit gives to a client that asks once for each insert, when it is
-- due, and does not wait.  With a small burst that is less than the limit's rate,
-- because inserts come by chance, and tokens that nobody takes are lost.
CREATE FUNCTION pg_temp.polite_tokens(burst float8, began float8, outage float8) RETURNS int
LANGUAGE plpgsql STRICT AS $$
DECLARE
	level float8 := burst;
	before float8 := 0;
	tokens int := 0;
	due float8;
BEGIN
	FOR due IN SELECT s + (s_us - us) / 1e6 - began AS d FROM insert_log ORDER BY d LOOP
		CONTINUE WHEN due NOT BETWEEN 0 AND outage;
		level := least(burst, level + 50 * (due - before));
		before := due;
		IF level >= 1 THEN
			level := level - 1;
			tokens := tokens + 1;
		END IF;
	END LOOP;
	RETURN tokens;
END
$$;

SELECT :'run', round(:outage, 2), round(h.done / :healthy::numeric, 1), round(o.done / :outage, 1),
       round((100 * o.done / o.due * h.due / h.done)::numeric, 1),
       round(h.p50::numeric, 1), round(h.p99::numeric, 1), round(o.p50::numeric, 1), round(o.p99::numeric, 1),
       (SELECT concat(round(max(oldest)::numeric, 2), ',', round(max(second)::numeric, 2)) FROM oldest
         WHERE extract(epoch FROM at) - :began BETWEEN 0 AND :outage),
       (SELECT count(*) FROM insert WHERE began BETWEEN 0 AND :outage),
       (SELECT count(*) FROM event WHERE what = 'request' AND at BETWEEN 0 AND :outage),
       (SELECT count(*) FROM insert WHERE sqlstate = '00000' AND ended BETWEEN 0 AND :outage),
       pg_temp.polite_tokens(substring(:'scenario' FROM '^429-burst-(\d+)$')::float8, :began, :outage),
       (SELECT count(*) FROM insert WHERE sqlstate = '00000' AND ended BETWEEN 20 AND :outage),
       (SELECT round(percentile_cont(0.5) WITHIN GROUP (ORDER BY ms)::numeric, 3) FROM insert
         WHERE sqlstate <> '00000' AND began BETWEEN 0 AND :outage),
       (SELECT round(min(ended)::numeric - :outage, 2) FROM insert WHERE sqlstate = '00000' AND ended > :outage)
  FROM cheap_phase h, cheap_phase o WHERE (h.phase, o.phase) = ('healthy', 'outage')
\g '|cat >>outage.csv'

SELECT :'run', sqlstate, count(*), round(percentile_cont(0.5) WITHIN GROUP (ORDER BY ms)::numeric, 3),
       round(percentile_cont(0.99) WITHIN GROUP (ORDER BY ms)::numeric, 3)
  FROM insert WHERE began BETWEEN 0 AND :outage GROUP BY sqlstate ORDER BY sqlstate
\g '|cat >>outage_inserts.csv'

SELECT :'run', second,
       (SELECT count(*) FROM cheap WHERE floor(ended) = second),
       (SELECT count(*) FROM insert WHERE floor(ended) = second AND sqlstate = '00000'),
       (SELECT count(*) FROM event WHERE floor(at) = second AND what = 'request')
  FROM generate_series(-:healthy, round(:outage) + :recovery - 1) AS second
\g '|cat >>outage_seconds.csv'
