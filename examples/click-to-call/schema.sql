--
-- What the page needs of the database.  A superuser runs it with psql, once:
--
--   psql -f schema.sql -v address=ID-OF-A-FABRIC-ADDRESS
--
-- The application logs in as "web".  It may execute one function and nothing
-- else: it chooses no address, sees no table, and cannot call the extension.
--
\set ON_ERROR_STOP on
BEGIN;

CREATE EXTENSION IF NOT EXISTS sw_guest_token;

-- Owns the function below.  It need not be able to call the extension either:
-- the trigger does that.
CREATE ROLE switchboard NOLOGIN;

-- However many visitors there are, they leave connections to others.
CREATE ROLE web LOGIN CONNECTION LIMIT 20;

CREATE TABLE guest_call (
	id			  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	visitor		  inet NOT NULL,
	addresses	  uuid[] NOT NULL DEFAULT ARRAY[:'address'::uuid],
	expires_at	  timestamptz NOT NULL DEFAULT now() + interval '15 minutes',
	token		  text,
	refresh_token text
);
CREATE INDEX ON guest_call (visitor, expires_at);

CREATE TRIGGER issue_token BEFORE INSERT ON guest_call FOR EACH ROW
	EXECUTE FUNCTION sw_guest_token_trigger('addresses', 'token', 'refresh_token', 'expires_at');

GRANT INSERT (visitor), SELECT (visitor, token, expires_at) ON guest_call TO switchboard;

-- A token for a visitor, and for how many seconds it is valid.  A visitor can have
-- five that are valid, and wait for one at a time.  One more is 53400, as it is
-- when SignalWire says "too many".
CREATE FUNCTION call_token(visitor inet, OUT token text, OUT expires_in int)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	-- Whoever has IPv6 has 2^64 addresses.
	visitor := network(set_masklen(visitor, CASE family(visitor) WHEN 6 THEN 64 ELSE 32 END));

	-- Only after the lock is it known how many there are.
	IF NOT pg_try_advisory_xact_lock(hashtextextended('guest_call ' || visitor, 0)) THEN
		RAISE configuration_limit_exceeded USING MESSAGE = 'the visitor is waiting for a token already';
	END IF;
	IF (SELECT count(*) >= 5 FROM public.guest_call c
		WHERE c.visitor = call_token.visitor AND c.expires_at > now()) THEN
		RAISE configuration_limit_exceeded USING MESSAGE = 'the visitor has five tokens already';
	END IF;

	INSERT INTO public.guest_call AS c (visitor) VALUES (call_token.visitor)
	RETURNING c.token, floor(extract(epoch FROM c.expires_at - clock_timestamp()))
		INTO call_token.token, call_token.expires_in;
END
$$;
ALTER FUNCTION call_token OWNER TO switchboard;
REVOKE EXECUTE ON FUNCTION call_token FROM PUBLIC;
GRANT EXECUTE ON FUNCTION call_token TO web;

COMMIT;
