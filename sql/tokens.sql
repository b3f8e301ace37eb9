--
-- One token at a time.
--
LOAD 'sw_guest_token';
\getenv sandbox_url SANDBOX_URL
\getenv sandbox_project_id SANDBOX_PROJECT_ID
\getenv sandbox_api_token SANDBOX_API_TOKEN
SET sw_guest_token.base_url = :'sandbox_url';
SET sw_guest_token.project_id = :'sandbox_project_id';
SET sw_guest_token.api_token = :'sandbox_api_token';
\set address '11111111-1111-1111-1111-111111111111'
\d sw_guest_token
\d sw_guest_token_request
SELECT length(token) BETWEEN 600 AND 900 AS token,
	   length(refresh_token) BETWEEN 600 AND 900 AS refresh_token,
	   sw_token_header(token), sw_token_header(refresh_token)
FROM sw_create_guest_token(ARRAY[:'address']::uuid[]);
-- all arguments, by name
SELECT sw_token_header(token)->>'ch' AS ch
FROM sw_create_guest_token(addresses => ARRAY[:'address', :'address']::uuid[],
						   expire_at => extract(epoch FROM now())::int + 60,
						   region => 'us-central',
						   ch => 'us-central');
SELECT token IS NOT NULL AS ok
FROM sw_create_guest_token(ARRAY[:'address']::uuid[], expires_in => '30 minutes');
-- ten addresses, and any lower bound
SELECT token <> refresh_token AS ok
FROM sw_create_guest_token(array_fill(:'address'::uuid, '{10}', '{7}'));
-- every call issues a token of its own
SELECT count(DISTINCT (t).token)
FROM (SELECT sw_create_guest_token(ARRAY[:'address']::uuid[]) t FROM generate_series(1, 5) OFFSET 0) s;
-- even where the planner would use Memoize
CREATE TEMP TABLE same AS
SELECT ARRAY[:'address']::uuid[] AS addresses, ARRAY[ROW(ARRAY[:'address']::uuid[], NULL, NULL, NULL)::sw_guest_token_request] AS requests,
	   (SELECT refresh_token FROM sw_create_guest_token(ARRAY[:'address']::uuid[])) AS refresh_token
FROM generate_series(1, 20);
ANALYZE same;
SELECT count(DISTINCT t.token) FROM same s, LATERAL (SELECT * FROM sw_create_guest_token(s.addresses) LIMIT 1) t;
SELECT count(DISTINCT t.token) FROM same s, LATERAL (SELECT * FROM sw_try_create_guest_token(s.addresses) LIMIT 1) t;
SELECT count(DISTINCT t.token) FROM same s, sw_create_guest_tokens(s.requests) t;
SELECT count(DISTINCT t.token) FROM same s, LATERAL (SELECT * FROM sw_refresh_guest_token(s.refresh_token) LIMIT 1) t;
SHOW enable_memoize;
DROP TABLE same;
-- nothing is written to the database
BEGIN READ ONLY;
SELECT token IS NOT NULL AS ok FROM sw_create_guest_token(ARRAY[:'address']::uuid[]);
COMMIT;
-- from PL/pgSQL, and from a trigger written in it
CREATE TEMP TABLE visitor (address uuid, token text, refresh_token text);
CREATE FUNCTION pg_temp.issue() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	SELECT t.token, t.refresh_token INTO NEW.token, NEW.refresh_token
	FROM sw_create_guest_token(ARRAY[NEW.address]) t;
	RETURN NEW;
END
$$;
CREATE TRIGGER issue BEFORE INSERT ON visitor FOR EACH ROW EXECUTE FUNCTION pg_temp.issue();
INSERT INTO visitor (address) SELECT gen_random_uuid() FROM generate_series(1, 3);
SELECT count(DISTINCT token), count(DISTINCT refresh_token) FROM visitor;
-- a path prefix that ends with a slash
SELECT set_config('sw_guest_token.base_url', :'sandbox_url' || '/script/201/', false) IS NOT NULL AS set;
SELECT token IS NOT NULL AS ok FROM sw_create_guest_token(ARRAY[:'address']::uuid[]);
-- the extension can be moved
CREATE SCHEMA regress_elsewhere;
ALTER EXTENSION sw_guest_token SET SCHEMA regress_elsewhere;
SELECT token IS NOT NULL AS ok FROM regress_elsewhere.sw_create_guest_token(ARRAY[:'address']::uuid[]);
SELECT error_code FROM regress_elsewhere.sw_create_guest_tokens(ARRAY[ROW(NULL, NULL, NULL, NULL)]::regress_elsewhere.sw_guest_token_request[]);
ALTER EXTENSION sw_guest_token SET SCHEMA public;
DROP SCHEMA regress_elsewhere;

-- changes to the types are noticed before anything is sent
BEGIN;
ALTER TYPE sw_guest_token ALTER ATTRIBUTE token TYPE int;
SAVEPOINT altered;
SELECT * FROM sw_create_guest_token('{11111111-1111-1111-1111-111111111111}');
ROLLBACK TO altered;
ALTER TYPE sw_guest_token ALTER ATTRIBUTE token TYPE text;
SELECT token IS NOT NULL AS ok FROM sw_create_guest_token('{11111111-1111-1111-1111-111111111111}');
ROLLBACK;
BEGIN;
ALTER TYPE sw_guest_token_request ALTER ATTRIBUTE expire_at TYPE bigint;
SELECT * FROM sw_create_guest_tokens('{}');
ROLLBACK;
-- an attribute that was added and dropped leaves a trace
BEGIN;
ALTER TYPE sw_guest_token ADD ATTRIBUTE other int;
ALTER TYPE sw_guest_token DROP ATTRIBUTE other;
ALTER TYPE sw_guest_token_request ADD ATTRIBUTE other int;
ALTER TYPE sw_guest_token_request DROP ATTRIBUTE other;
SAVEPOINT altered;
SELECT * FROM sw_create_guest_token('{11111111-1111-1111-1111-111111111111}');
ROLLBACK TO altered;
SELECT * FROM sw_create_guest_tokens('{}');
ROLLBACK TO altered;
DROP EXTENSION sw_guest_token;
CREATE EXTENSION sw_guest_token;
SELECT token IS NOT NULL AS ok FROM sw_create_guest_token('{11111111-1111-1111-1111-111111111111}');
SELECT error_code FROM sw_create_guest_tokens('{NULL}');
ROLLBACK;
