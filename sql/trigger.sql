--
-- sw_guest_token_trigger(): issues a token as a row arrives.
--
LOAD 'sw_guest_token';
\getenv sandbox_url SANDBOX_URL
\getenv sandbox_project_id SANDBOX_PROJECT_ID
\getenv sandbox_api_token SANDBOX_API_TOKEN
SET sw_guest_token.base_url = :'sandbox_url';
SET sw_guest_token.project_id = :'sandbox_project_id';
SET sw_guest_token.api_token = :'sandbox_api_token';
CREATE TABLE visitor (
	id int PRIMARY KEY,
	gone int,
	addresses uuid[],
	token text,
	refresh_token varchar,
	expires bigint,
	region text,
	ch varchar(20),
	note text
);
ALTER TABLE visitor DROP COLUMN gone;
CREATE TRIGGER issue BEFORE INSERT OR UPDATE ON visitor FOR EACH ROW
	EXECUTE FUNCTION sw_guest_token_trigger('addresses', 'token', 'refresh_token', 'expires', 'region', 'ch');
-- INSERT always issues
INSERT INTO visitor (id, addresses) VALUES (1, '{11111111-1111-1111-1111-111111111111}')
	RETURNING sw_token_header(token)->>'typ' AS token, sw_token_header(refresh_token)->>'typ' AS refresh_token;
INSERT INTO visitor (id, addresses, token) VALUES (2, '{11111111-1111-1111-1111-111111111111}', 'mine')
	RETURNING token <> 'mine' AS issued;
-- NULL addresses leave the row as it is
INSERT INTO visitor (id, token, expires) VALUES (3, 'mine', 0) RETURNING token, refresh_token;
-- UPDATE only if an input changed, or the token is NULL
CREATE FUNCTION pg_temp.issues(change text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	before text := (SELECT token FROM visitor WHERE id = 1);
BEGIN
	EXECUTE 'UPDATE visitor SET ' || change || ' WHERE id = 1';
	RETURN before IS DISTINCT FROM (SELECT token FROM visitor WHERE id = 1);
END
$$;
SELECT change, pg_temp.issues(change) AS issues
FROM unnest(ARRAY['note = ''x''', 'addresses = addresses', 'region = NULL', 'region = ''us-central''',
				  'region = ''us-central''', 'ch = ''us-central''', 'expires = 4102444800', 'expires = 4102444800',
				  'addresses = ''{22222222-2222-2222-2222-222222222222}''', 'token = NULL',
				  'refresh_token = NULL', 'addresses = NULL', 'note = ''y''']) change;
-- a bigint beyond integer is sent as it is
UPDATE visitor SET addresses = '{11111111-1111-1111-1111-111111111111}', expires = 4102444800000 WHERE id = 2;
SELECT token IS NOT NULL AS issued FROM visitor WHERE id = 2;
-- errors are those of the function
INSERT INTO visitor (id, addresses) VALUES (4, '{}');
\echo :LAST_ERROR_SQLSTATE
INSERT INTO visitor (id, addresses, expires) VALUES (4, '{11111111-1111-1111-1111-111111111111}', 0);
\echo :LAST_ERROR_SQLSTATE
INSERT INTO visitor (id, addresses, region) VALUES (4, '{11111111-1111-1111-1111-111111111111}', 'nowhere');
\echo :LAST_ERROR_SQLSTATE
-- COPY and ON CONFLICT
COPY visitor (id, addresses) FROM stdin;
5	{11111111-1111-1111-1111-111111111111}
6	\N
\.
INSERT INTO visitor (id, addresses) VALUES (6, '{11111111-1111-1111-1111-111111111111}')
	ON CONFLICT (id) DO UPDATE SET addresses = excluded.addresses;
INSERT INTO visitor (id, addresses) VALUES (6, '{11111111-1111-1111-1111-111111111111}')
	ON CONFLICT (id) DO NOTHING;
SELECT id, token IS NOT NULL AS issued FROM visitor WHERE id IN (5, 6) ORDER BY id;
-- optional columns are skipped by an empty string; timestamps are cut to seconds
CREATE TABLE "Odd Names" ("My Addresses" uuid[], "my ""token""" text, "Refresh" text, "Until" timestamptz, "Ch" text);
CREATE TRIGGER issue BEFORE INSERT OR UPDATE ON "Odd Names" FOR EACH ROW
	EXECUTE FUNCTION sw_guest_token_trigger('My Addresses', 'my "token"', 'Refresh', 'Until', '', 'Ch');
INSERT INTO "Odd Names" VALUES ('{11111111-1111-1111-1111-111111111111}', NULL, NULL, now() + '1 hour', 'us-central')
	RETURNING sw_token_header("my ""token""")->>'ch' AS ch;
INSERT INTO "Odd Names" VALUES ('{11111111-1111-1111-1111-111111111111}', NULL, NULL, 'infinity');
\echo :LAST_ERROR_SQLSTATE
INSERT INTO "Odd Names" VALUES ('{11111111-1111-1111-1111-111111111111}', NULL, NULL, '-infinity');
\echo :LAST_ERROR_SQLSTATE
\set VERBOSITY terse
INSERT INTO "Odd Names" VALUES ('{11111111-1111-1111-1111-111111111111}', NULL, NULL, now());
\echo :LAST_ERROR_SQLSTATE
\set VERBOSITY default
-- partitions, with their columns in another order
CREATE TABLE parted (id int, addresses uuid[], token text, refresh_token text) PARTITION BY RANGE (id);
CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (0) TO (10);
CREATE TABLE parted_high (refresh_token text, gone int, token text, addresses uuid[], id int);
ALTER TABLE parted_high DROP COLUMN gone;
ALTER TABLE parted ATTACH PARTITION parted_high FOR VALUES FROM (10) TO (20);
CREATE TRIGGER issue BEFORE INSERT OR UPDATE ON parted FOR EACH ROW
	EXECUTE FUNCTION sw_guest_token_trigger('addresses', 'token', 'refresh_token');
INSERT INTO parted SELECT i, ARRAY['11111111-1111-1111-1111-111111111111'::uuid] FROM generate_series(9, 10) i
	RETURNING id, sw_token_header(token)->>'typ' AS token, sw_token_header(refresh_token)->>'typ' AS refresh_token;
-- a domain can be read like its type
CREATE DOMAIN address_list AS uuid[];
CREATE TABLE domains (addresses address_list, token text, refresh_token text);
CREATE TRIGGER issue BEFORE INSERT ON domains FOR EACH ROW
	EXECUTE FUNCTION sw_guest_token_trigger('addresses', 'token', 'refresh_token');
INSERT INTO domains VALUES ('{11111111-1111-1111-1111-111111111111}') RETURNING token IS NOT NULL AS issued;
-- misuse is found before anything is sent
\getenv port SANDBOX_PORT
\set nowhere http://127.0.0.1:1/ :port
SET sw_guest_token.base_url = :'nowhere';
CREATE TABLE misused (
	addresses uuid[], token text, refresh_token text, short varchar(100), fixed char(10), expires int,
	day date, address uuid, made text GENERATED ALWAYS AS ('x') STORED, list text[], dom address_list);
CREATE FUNCTION pg_temp.misuse(definition text, arguments text, event text DEFAULT 'INSERT INTO misused (addresses) VALUES (''{11111111-1111-1111-1111-111111111111}'')')
RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE TRIGGER misuse %s EXECUTE FUNCTION sw_guest_token_trigger(%s)', definition, arguments);
	EXECUTE event;
	RETURN 'nothing wrong';
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ' ' || SQLERRM;
END
$$;
SELECT pg_temp.misuse('AFTER INSERT ON misused FOR EACH ROW', '''addresses'', ''token'', ''refresh_token''');
SELECT pg_temp.misuse('BEFORE INSERT ON misused FOR EACH STATEMENT', '''addresses'', ''token'', ''refresh_token''');
SELECT pg_temp.misuse('BEFORE DELETE ON misused FOR EACH STATEMENT', '''addresses'', ''token'', ''refresh_token''', 'DELETE FROM misused');
SELECT pg_temp.misuse('BEFORE TRUNCATE ON misused FOR EACH STATEMENT', '''addresses'', ''token'', ''refresh_token''', 'TRUNCATE misused');
SELECT arguments, pg_temp.misuse('BEFORE INSERT ON misused FOR EACH ROW', arguments)
FROM unnest(ARRAY[
	'',
	'''addresses'', ''token''',
	'''addresses'', ''token'', ''refresh_token'', '''', '''', '''', ''''',
	'''nowhere'', ''token'', ''refresh_token''',
	'''addresses'', ''ctid'', ''refresh_token''',
	'''addresses'', ''token'', ''''',
	'''addresses'', ''token'', ''refresh_token'', ''Expires''',
	'''address'', ''token'', ''refresh_token''',
	'''list'', ''token'', ''refresh_token''',
	'''addresses'', ''short'', ''refresh_token''',
	'''addresses'', ''token'', ''fixed''',
	'''addresses'', ''made'', ''refresh_token''',
	'''addresses'', ''token'', ''token''',
	'''addresses'', ''token'', ''refresh_token'', ''day''',
	'''addresses'', ''token'', ''refresh_token'', ''expires'', ''list''',
	'''addresses'', ''token'', ''refresh_token'', ''expires'', ''short'', ''fixed''',
	'''addresses'', ''token'', ''refresh_token'', '''', ''made''',
	'''dom'', ''token'', ''refresh_token''']) arguments;
SELECT sw_guest_token_trigger();
\echo :LAST_ERROR_SQLSTATE
DROP TABLE visitor, "Odd Names", parted, domains, misused;
DROP DOMAIN address_list;
