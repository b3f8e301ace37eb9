/* sw_guest_token--1.0.sql */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION sw_guest_token" to load this file. \quit

-- The comments are read in psql, and by the clients of API layers such as
-- PostgREST and PostGraphile, which show the first line as a summary.

CREATE TYPE sw_guest_token AS (
	token text,
	refresh_token text
);
COMMENT ON TYPE sw_guest_token IS
'A guest token, and the refresh token that can be traded for a new pair.';
COMMENT ON COLUMN sw_guest_token.token IS
'The guest token, for SignalWire''s SDK in the visitor''s browser. Whoever has it can reach its addresses until it expires.';
COMMENT ON COLUMN sw_guest_token.refresh_token IS
'Can be traded for a new pair with sw_refresh_guest_token. Keep it on the server.';

CREATE TYPE sw_guest_token_result AS (
	token text,
	refresh_token text,
	error_code text,
	error text
);
COMMENT ON TYPE sw_guest_token_result IS
'A guest token with its refresh token, or the reason why there is none.';
COMMENT ON COLUMN sw_guest_token_result.token IS
'The guest token, for SignalWire''s SDK in the visitor''s browser. NULL after a failure.';
COMMENT ON COLUMN sw_guest_token_result.refresh_token IS
'Can be traded for a new pair with sw_refresh_guest_token. Keep it on the server. NULL after a failure.';
COMMENT ON COLUMN sw_guest_token_result.error_code IS
'The SQLSTATE of the failure. NULL if there is a token.';
COMMENT ON COLUMN sw_guest_token_result.error IS
'The error message, for people to read; programs should look at error_code. NULL if there is a token.';

CREATE TYPE sw_guest_token_request AS (
	addresses uuid[],
	expire_at int,
	region text,
	ch text
);
COMMENT ON TYPE sw_guest_token_request IS
'A request for one guest token. sw_create_guest_tokens takes an array of these.';
COMMENT ON COLUMN sw_guest_token_request.addresses IS
'The IDs of 1 to 10 Fabric addresses that the visitor may reach.';
COMMENT ON COLUMN sw_guest_token_request.expire_at IS
'When the token expires, as Unix time in seconds. NULL means the API''s default, two hours from now.';
COMMENT ON COLUMN sw_guest_token_request.region IS
'The regional cluster that the SDK connects to. Not sent if NULL.';
COMMENT ON COLUMN sw_guest_token_request.ch IS
'The cluster''s endpoint, which becomes the claim ch in the token''s header. Not sent if NULL.';

CREATE FUNCTION sw_guest_token_support(
	internal)
RETURNS internal
AS 'MODULE_PATHNAME', 'sw_guest_token_support'
LANGUAGE C STRICT;
COMMENT ON FUNCTION sw_guest_token_support(internal) IS
'Tells the planner about calls, so that queries can read ahead and each row gets its own result. Only PostgreSQL calls it.';

-- Functions that call the API cost more than PL/pgSQL's 100, so that cheap
-- filters run first, but not so much that queries are compiled because of them.

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
'Asks SignalWire for a guest token.

addresses lists the IDs of the 1 to 10 Fabric addresses that the token''s holder may reach. The token expires at expire_at (Unix time in seconds) or after expires_in, by default after two hours. region and ch choose a cluster. A failure raises an error.';

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
'Asks SignalWire for a guest token, and returns a failure as a row instead of raising it.

The arguments are those of sw_create_guest_token. After a failure the tokens are NULL, and error_code and error say why. Unusable settings and cancels are still raised as errors.';

CREATE FUNCTION sw_create_guest_tokens(
	requests sw_guest_token_request[])
RETURNS TABLE (
	ordinality int,
	token text,
	refresh_token text,
	error_code text,
	error text)
AS 'MODULE_PATHNAME', 'sw_create_guest_tokens'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000
SUPPORT sw_guest_token_support;
COMMENT ON FUNCTION sw_create_guest_tokens(sw_guest_token_request[]) IS
'Asks SignalWire for many guest tokens at once.

It returns one row for each request, in order of completion; ordinality is the request''s place in the array, from 1. If a request failed, error_code has the SQLSTATE, error has the message, and the tokens are NULL. Unusable settings and cancels are raised as errors.';

CREATE FUNCTION sw_refresh_guest_token(
	refresh_token text)
RETURNS sw_guest_token
AS 'MODULE_PATHNAME', 'sw_refresh_guest_token'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000
SUPPORT sw_guest_token_support;
COMMENT ON FUNCTION sw_refresh_guest_token(text) IS
'Trades a refresh token for a new guest token and a new refresh token.';

CREATE FUNCTION sw_guest_token_trigger()
RETURNS trigger
AS 'MODULE_PATHNAME', 'sw_guest_token_trigger'
LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION sw_guest_token_trigger() IS
'Issues a guest token as a row is inserted or updated.

Use it in a BEFORE INSERT OR UPDATE trigger, FOR EACH ROW. The trigger''s arguments name the columns for the addresses, the token, the refresh token and, optionally, expire_at, region and ch.';

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
'Checks each step on the way to a guest token, and says what to do about one that fails.

It returns one row for each step, in order, and sends one request, which issues no token.';

CREATE FUNCTION sw_token_header(
	token text)
RETURNS jsonb
AS 'MODULE_PATHNAME', 'sw_token_header'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION sw_token_header(text) IS
'Decodes the header of a token.

It sends nothing and verifies nothing. The rest of a token is encrypted.';

-- What all sessions know about the API, and have counted.

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
'State and statistics by target, for the view of the same name.';

CREATE FUNCTION sw_guest_token_latency(
	OUT target text,
	OUT le_ms double precision,
	OUT calls bigint)
RETURNS SETOF record
AS 'MODULE_PATHNAME', 'sw_guest_token_latency'
LANGUAGE C VOLATILE PARALLEL SAFE ROWS 72;
COMMENT ON FUNCTION sw_guest_token_latency() IS
'How long calls took, by target, for the view of the same name.';

CREATE FUNCTION sw_guest_token_stat_reset()
RETURNS void
AS 'MODULE_PATHNAME', 'sw_guest_token_stat_reset'
LANGUAGE C VOLATILE PARALLEL SAFE;
COMMENT ON FUNCTION sw_guest_token_stat_reset() IS
'Sets the statistics of all targets to zero.

What is known about the API stays: if requests are suspended, they remain suspended.';

CREATE VIEW sw_guest_token_stat AS
	SELECT * FROM sw_guest_token_stat();
COMMENT ON VIEW sw_guest_token_stat IS
'How calls ended, and whether requests are suspended, by target.

A target is the API''s URL, a project and a proxy together. A call is a request for one token. The counters cover all sessions of the server.';
COMMENT ON COLUMN sw_guest_token_stat.target IS
'The API''s URL.';
COMMENT ON COLUMN sw_guest_token_stat.state IS
'open while requests are suspended, otherwise closed.';
COMMENT ON COLUMN sw_guest_token_stat.next_probe IS
'When the next request may be sent to find out whether the API works again. NULL if requests are not suspended.';
COMMENT ON COLUMN sw_guest_token_stat.sessions IS
'Sessions that are in a call now.';
COMMENT ON COLUMN sw_guest_token_stat.calls IS
'Tokens that were asked for: the sum of issued, rejected, limited, failed, timed_out, cancelled, suspended, crowded and over_budget.';
COMMENT ON COLUMN sw_guest_token_stat.requests IS
'Requests that were sent, retries and the doctor''s included.';
COMMENT ON COLUMN sw_guest_token_stat.issued IS
'Calls that returned a token.';
COMMENT ON COLUMN sw_guest_token_stat.rejected IS
'Calls that the API rejected with a 4xx status other than 429.';
COMMENT ON COLUMN sw_guest_token_stat.limited IS
'Calls that ended with status 429, too many requests.';
COMMENT ON COLUMN sw_guest_token_stat.failed IS
'Calls that failed for another reason: no connection, a broken connection, a 5xx status, or a response that was not valid.';
COMMENT ON COLUMN sw_guest_token_stat.timed_out IS
'Calls whose time limit ran out, or that gave up because no session got an answer.';
COMMENT ON COLUMN sw_guest_token_stat.cancelled IS
'Calls that were cancelled, that ended with their statement or session, or that were not sent because a 401 or 403 had stopped their batch.';
COMMENT ON COLUMN sw_guest_token_stat.retries IS
'Attempts after the first.';
COMMENT ON COLUMN sw_guest_token_stat.retries_denied IS
'Attempts after the first that the shared budget of retries or a suspension did not allow.';
COMMENT ON COLUMN sw_guest_token_stat.suspended IS
'Calls that were not sent because requests were suspended.';
COMMENT ON COLUMN sw_guest_token_stat.crowded IS
'Calls that were not sent because too many sessions waited for the API.';
COMMENT ON COLUMN sw_guest_token_stat.over_budget IS
'Calls that were not sent because the role had used up its tokens_per_minute.';
COMMENT ON COLUMN sw_guest_token_stat.opened IS
'How often requests were suspended.';
COMMENT ON COLUMN sw_guest_token_stat.last_opened IS
'When requests were last suspended. NULL if they never were.';
COMMENT ON COLUMN sw_guest_token_stat.last_error IS
'The SQLSTATE of the last call that failed and was not cancelled. NULL if none failed.';
COMMENT ON COLUMN sw_guest_token_stat.total_time IS
'Milliseconds that calls took. Those that were cancelled or not sent are left out.';
COMMENT ON COLUMN sw_guest_token_stat.stats_reset IS
'When this row began to count.';

CREATE VIEW sw_guest_token_latency AS
	SELECT * FROM sw_guest_token_latency();
COMMENT ON VIEW sw_guest_token_latency IS
'A cumulative histogram of how long calls took, by target.';
COMMENT ON COLUMN sw_guest_token_latency.target IS
'The API''s URL.';
COMMENT ON COLUMN sw_guest_token_latency.le_ms IS
'The upper bound in milliseconds: powers of two from 1 on, and Infinity.';
COMMENT ON COLUMN sw_guest_token_latency.calls IS
'Calls that took at most le_ms milliseconds.';

-- Whoever may call these functions spends the project's money, so nobody but
-- the owner may until it is granted.  By now, roles other than PUBLIC may have
-- EXECUTE, too: ALTER DEFAULT PRIVILEGES grants it to the roles that it names
-- when functions are created.  Every name is qualified, and so are operators:
-- the search_path is the schema of the extension, where somebody may have put
-- better matches.
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

-- Whoever may read the server's statistics may read these.  Only the owner may
-- reset them, and may grant that.
GRANT EXECUTE ON FUNCTION sw_guest_token_stat(), sw_guest_token_latency()
	TO pg_read_all_stats;
GRANT SELECT ON sw_guest_token_stat, sw_guest_token_latency TO pg_read_all_stats;
