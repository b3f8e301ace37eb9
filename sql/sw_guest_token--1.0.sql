/* sw_guest_token--1.0.sql */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION sw_guest_token" to load this file. \quit

CREATE TYPE sw_guest_token AS (
	token text,
	refresh_token text
);
COMMENT ON TYPE sw_guest_token IS
'a guest token and the token that refreshes it';

CREATE TYPE sw_guest_token_result AS (
	token text,
	refresh_token text,
	error_code text,
	error text
);
COMMENT ON TYPE sw_guest_token_result IS
'a guest token with its refresh token, or why there is none';

CREATE TYPE sw_guest_token_request AS (
	addresses uuid[],
	expire_at int,
	region text,
	ch text
);
COMMENT ON TYPE sw_guest_token_request IS
'what one guest token is asked for';

CREATE FUNCTION sw_guest_token_support(
	internal)
RETURNS internal
AS 'MODULE_PATHNAME', 'sw_guest_token_support'
LANGUAGE C STRICT;
COMMENT ON FUNCTION sw_guest_token_support(internal) IS
'tells the planner of calls, so that queries may read ahead';

-- What reaches outside costs more than PL/pgSQL's 100, so that cheap filters
-- run first, but not so much that queries are compiled for its sake.

CREATE FUNCTION sw_create_guest_token(
	addresses uuid[],
	expire_at int DEFAULT NULL,
	region text DEFAULT NULL,
	ch text DEFAULT NULL,
	expires_in interval DEFAULT NULL)
RETURNS sw_guest_token
AS 'MODULE_PATHNAME', 'sw_create_guest_token'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000
SUPPORT sw_guest_token_support;
COMMENT ON FUNCTION sw_create_guest_token(uuid[], int, text, text, interval) IS
'asks SignalWire for a guest token';

CREATE FUNCTION sw_try_create_guest_token(
	addresses uuid[],
	expire_at int DEFAULT NULL,
	region text DEFAULT NULL,
	ch text DEFAULT NULL,
	expires_in interval DEFAULT NULL)
RETURNS sw_guest_token_result
AS 'MODULE_PATHNAME', 'sw_try_create_guest_token'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000
SUPPORT sw_guest_token_support;
COMMENT ON FUNCTION sw_try_create_guest_token(uuid[], int, text, text, interval) IS
'asks SignalWire for a guest token; a failure is a result';

CREATE FUNCTION sw_create_guest_tokens(
	requests sw_guest_token_request[])
RETURNS TABLE (
	ordinality int,
	token text,
	refresh_token text,
	error_code text,
	error text)
AS 'MODULE_PATHNAME', 'sw_create_guest_tokens'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION sw_create_guest_tokens(sw_guest_token_request[]) IS
'asks SignalWire for many guest tokens at once';

CREATE FUNCTION sw_refresh_guest_token(
	refresh_token text)
RETURNS sw_guest_token
AS 'MODULE_PATHNAME', 'sw_refresh_guest_token'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION sw_refresh_guest_token(text) IS
'trades a refresh token for a new pair';

CREATE FUNCTION sw_guest_token_trigger()
RETURNS trigger
AS 'MODULE_PATHNAME', 'sw_guest_token_trigger'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION sw_guest_token_trigger() IS
'issues a guest token as a row is inserted or updated';

CREATE FUNCTION sw_guest_token_check()
RETURNS TABLE (
	step text,
	ok boolean,
	took interval,
	detail text,
	hint text)
AS 'MODULE_PATHNAME', 'sw_guest_token_check'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000 ROWS 9;
COMMENT ON FUNCTION sw_guest_token_check() IS
'says which step on the way to a guest token fails, and what to do';

CREATE FUNCTION sw_token_header(
	token text)
RETURNS jsonb
AS 'MODULE_PATHNAME', 'sw_token_header'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION sw_token_header(text) IS
'decodes the header of a token, which is not encrypted';

-- What all sessions know of the API, and have counted.

CREATE FUNCTION sw_guest_token_stat(
	OUT target text,
	OUT state text,
	OUT next_probe timestamptz,
	OUT sessions int,
	OUT calls bigint,
	OUT requests bigint,
	OUT issued bigint,
	OUT rejected bigint,
	OUT limited bigint,
	OUT failed bigint,
	OUT timed_out bigint,
	OUT cancelled bigint,
	OUT retries bigint,
	OUT retries_denied bigint,
	OUT suspended bigint,
	OUT crowded bigint,
	OUT over_budget bigint,
	OUT opened bigint,
	OUT last_opened timestamptz,
	OUT last_error text,
	OUT total_time double precision,
	OUT stats_reset timestamptz)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'sw_guest_token_stat'
LANGUAGE C VOLATILE PARALLEL SAFE ROWS 4;
COMMENT ON FUNCTION sw_guest_token_stat() IS
'state and statistics of the targets; for the view of this name';

CREATE FUNCTION sw_guest_token_latency(
	OUT target text,
	OUT le_ms double precision,
	OUT calls bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'sw_guest_token_latency'
LANGUAGE C VOLATILE PARALLEL SAFE ROWS 72;
COMMENT ON FUNCTION sw_guest_token_latency() IS
'how long calls took; for the view of this name';

CREATE FUNCTION sw_guest_token_stat_reset()
RETURNS void
AS 'MODULE_PATHNAME', 'sw_guest_token_stat_reset'
LANGUAGE C VOLATILE PARALLEL SAFE;
COMMENT ON FUNCTION sw_guest_token_stat_reset() IS
'sets all statistics to zero';

CREATE VIEW sw_guest_token_stat AS
	SELECT * FROM sw_guest_token_stat();
COMMENT ON VIEW sw_guest_token_stat IS
'whether requests are suspended, and what became of calls, by target';

CREATE VIEW sw_guest_token_latency AS
	SELECT * FROM sw_guest_token_latency();
COMMENT ON VIEW sw_guest_token_latency IS
'cumulative histogram of the time that calls took, by target';

-- Whoever may call these functions spends the project's money, so nobody but
-- the owner may until it is granted.  PUBLIC is not all that may have EXECUTE
-- by now: ALTER DEFAULT PRIVILEGES grants it to whom it names as functions are
-- created.  Every name is qualified, operators too: the search_path is the schema
-- of the extension, where somebody may have put better matches.
DO $$
DECLARE
	command pg_catalog.text;
BEGIN
	FOR command IN
		SELECT pg_catalog.format('REVOKE EXECUTE ON FUNCTION %s FROM %s',
			p.oid::pg_catalog.regprocedure,
			CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0 THEN 'PUBLIC'
				 ELSE a.grantee::pg_catalog.regrole::pg_catalog.text END)
		FROM pg_catalog.pg_extension e
			JOIN pg_catalog.pg_depend d
				ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
				AND d.refobjid OPERATOR(pg_catalog.=) e.oid
				AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
				AND d.deptype OPERATOR(pg_catalog.=) 'e'
			JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) d.objid
			CROSS JOIN pg_catalog.aclexplode(
				COALESCE(p.proacl, pg_catalog.acldefault('f', p.proowner))) a
		WHERE e.extname OPERATOR(pg_catalog.=) 'sw_guest_token'
			AND p.proname OPERATOR(pg_catalog.<>) 'sw_token_header'
			AND a.grantee OPERATOR(pg_catalog.<>) p.proowner
	LOOP
		EXECUTE command;
	END LOOP;
END
$$ LANGUAGE plpgsql;

-- Whoever may read the server's statistics may read these.  A reset is the
-- owner's, who may grant it.
GRANT EXECUTE ON FUNCTION sw_guest_token_stat(), sw_guest_token_latency()
	TO pg_read_all_stats;
GRANT SELECT ON sw_guest_token_stat, sw_guest_token_latency TO pg_read_all_stats;
