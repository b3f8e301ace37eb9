--
-- What the page needs of the database.  A superuser runs it with psql, once:
--
--   psql -f schema.sql -v address=ID-OF-A-FABRIC-ADDRESS -v path=/public/ITS-NAME
--
-- The application logs in as "web".  It may execute three functions and nothing
-- else: it chooses no address, sees no table, and cannot call the extension.
--
\set ON_ERROR_STOP on
BEGIN;

CREATE EXTENSION IF NOT EXISTS sw_guest_token;

-- Owns the functions below.  It cannot ask for tokens: the trigger does that.  It may
-- only trade a refresh token for new ones.
CREATE ROLE switchboard NOLOGIN;
GRANT EXECUTE ON FUNCTION sw_refresh_guest_token TO switchboard;

-- However many visitors there are, they leave connections for others.
CREATE ROLE web LOGIN CONNECTION LIMIT 20;

-- Who is called: the ID is for the token, the path for the browser.
CREATE TABLE destination (
	address uuid PRIMARY KEY,
	path	text NOT NULL
);
INSERT INTO destination VALUES (:'address', :'path');
GRANT SELECT ON destination TO switchboard;

-- Like the table of recipe 5 in docs/recipes.md.  The browser knows a secret, which is
-- not a token; this table has only its hash.
CREATE TABLE call_session (
	id			  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	secret_hash	  bytea UNIQUE,
	visitor		  inet NOT NULL,
	addresses	  uuid[] NOT NULL,
	started_at	  timestamptz NOT NULL DEFAULT now(),
	expires_at	  timestamptz NOT NULL DEFAULT now() + interval '15 minutes',
	token		  text,
	refresh_token text
);
CREATE INDEX ON call_session (visitor, started_at);

CREATE TRIGGER issue_token BEFORE INSERT ON call_session FOR EACH ROW
	EXECUTE FUNCTION sw_guest_token_trigger('addresses', 'token', 'refresh_token', 'expires_at');

GRANT SELECT, INSERT (secret_hash, visitor, addresses),
	UPDATE (secret_hash, expires_at, token, refresh_token) ON call_session TO switchboard;

-- Returns a token for a visitor, how many seconds it is valid, whom to call, and the
-- session's secret.  A visitor can have five tokens in a quarter of an hour, and wait
-- for one at a time.  Beyond that, the function returns no token but how many seconds
-- to wait.
CREATE FUNCTION start_call(visitor inet,
	OUT token text, OUT expires_in int, OUT path text, OUT secret text, OUT retry_after int)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	address uuid;
BEGIN
	-- A visitor with IPv6 has 2^64 addresses.
	visitor := network(set_masklen(visitor, CASE family(visitor) WHEN 6 THEN 64 ELSE 32 END));

	-- The number of calls is certain only under the lock.
	IF NOT pg_try_advisory_xact_lock(hashtextextended('call_session ' || visitor, 0)) THEN
		retry_after := 5;
		RETURN;
	END IF;
	-- If the fifth last call was within the quarter of an hour, the visitor has to wait.
	SELECT ceil(extract(epoch FROM s.started_at + interval '15 minutes' - now())) INTO retry_after
	  FROM public.call_session s
	 WHERE s.visitor = start_call.visitor AND s.started_at > now() - interval '15 minutes'
	 ORDER BY s.started_at DESC
	OFFSET 4 LIMIT 1;
	IF FOUND THEN
		RETURN;
	END IF;

	SELECT d.address, d.path INTO STRICT address, start_call.path FROM public.destination d;
	secret := gen_random_uuid();
	INSERT INTO public.call_session AS s (secret_hash, visitor, addresses)
	VALUES (sha256(convert_to(secret, 'UTF8')), start_call.visitor, ARRAY[address])
	RETURNING s.token, floor(extract(epoch FROM s.expires_at - clock_timestamp()))
		INTO start_call.token, start_call.expires_in;
END
$$;

-- The session's next token.  A new one is requested when the last one has less than
-- five minutes left.  Otherwise, and where recipe 5's worker keeps the rows fresh, it
-- is the one in the row.  After four hours, or when the call has ended, there is none.
CREATE FUNCTION refresh_call(secret text, OUT token text, OUT expires_in int)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	session record;
BEGIN
	SELECT s.id, s.expires_at INTO session
	  FROM public.call_session s
	 WHERE s.secret_hash = sha256(convert_to(secret, 'UTF8')) AND s.started_at > now() - interval '4 hours'
	   FOR UPDATE;
	IF NOT FOUND THEN
		RETURN;
	END IF;
	IF session.expires_at < now() + interval '5 minutes' THEN
		-- no refresh token in a variable: PostgreSQL can be made to print those
		UPDATE public.call_session s
		   SET (token, refresh_token) = (SELECT t.token, t.refresh_token
		                                   FROM public.sw_refresh_guest_token(s.refresh_token) t),
		       expires_at = now() + interval '2 hours'
		 WHERE s.id = session.id;
	END IF;
	SELECT s.token, floor(extract(epoch FROM s.expires_at - clock_timestamp())) INTO refresh_call.token, refresh_call.expires_in
	  FROM public.call_session s
	 WHERE s.id = session.id;
END
$$;

-- The visitor has hung up: from now on, the secret is useless.
CREATE FUNCTION end_call(secret text) RETURNS void
LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
	UPDATE public.call_session s
	   SET secret_hash = NULL, token = NULL, refresh_token = NULL
	 WHERE s.secret_hash = sha256(convert_to(secret, 'UTF8'))
$$;

ALTER FUNCTION start_call OWNER TO switchboard;
ALTER FUNCTION refresh_call OWNER TO switchboard;
ALTER FUNCTION end_call OWNER TO switchboard;
REVOKE EXECUTE ON FUNCTION start_call, refresh_call, end_call FROM PUBLIC;
GRANT EXECUTE ON FUNCTION start_call, refresh_call, end_call TO web;

COMMIT;
