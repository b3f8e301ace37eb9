--
-- What an ordinary role may do, see and set.
--
LOAD 'sw_guest_token';
\getenv sandbox_url SANDBOX_URL
\getenv sandbox_project_id SANDBOX_PROJECT_ID
\getenv sandbox_api_token SANDBOX_API_TOKEN
SET sw_guest_token.base_url = :'sandbox_url';
SET sw_guest_token.project_id = :'sandbox_project_id';
SET sw_guest_token.api_token = :'sandbox_api_token';
SELECT p.oid::regprocedure AS function, provolatile, proparallel, procost, proisstrict,
	   has_function_privilege('public', p.oid, 'EXECUTE') AS public
FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.deptype = 'e'
	 JOIN pg_extension e ON e.oid = d.refobjid
WHERE e.extname = 'sw_guest_token' AND d.classid = 'pg_proc'::regclass
ORDER BY p.oid::regprocedure::text COLLATE "C";
-- the server's wording differs between versions, but its codes do not
\set VERBOSITY sqlstate
CREATE ROLE regress_sw_guest_token;
SET ROLE regress_sw_guest_token;
-- without EXECUTE
SELECT sw_create_guest_token(ARRAY['11111111-1111-1111-1111-111111111111']::uuid[]);
SELECT * FROM sw_create_guest_tokens('{}');
SELECT sw_refresh_guest_token('token');
SELECT sw_token_header('eyJhbGciOiJkaXIifQ.');
-- with EXECUTE, and nothing more
RESET ROLE;
GRANT EXECUTE ON FUNCTION sw_create_guest_token TO regress_sw_guest_token;
SET ROLE regress_sw_guest_token;
SELECT token ~ '^eyJ' AS ok FROM sw_create_guest_token(ARRAY['11111111-1111-1111-1111-111111111111']::uuid[]);
-- secrets are not shown
SHOW sw_guest_token.api_token;
SELECT current_setting('sw_guest_token.api_token_file');
SELECT current_setting('sw_guest_token.proxy', true);
SELECT name FROM pg_settings WHERE name LIKE 'sw\_guest\_token.%' ORDER BY name;
-- whoever could send the credentials elsewhere could read them
SET sw_guest_token.base_url = 'http://127.0.0.1:1';
SET sw_guest_token.space_name = 'example';
SET sw_guest_token.project_id = 'project';
SET sw_guest_token.api_token = 'PTother';
SET sw_guest_token.api_token_file = '/etc/passwd';
SET sw_guest_token.ca_file = '/tmp/ca.pem';
SET sw_guest_token.proxy = 'http://127.0.0.1:1';
SELECT set_config('sw_guest_token.base_url', 'http://127.0.0.1:1', false);
-- anybody may change times and numbers
SET sw_guest_token.connect_timeout = '1s';
SET sw_guest_token.timeout = '9s';
SET sw_guest_token.max_retries = 0;
SET sw_guest_token.max_concurrency = 1;
-- a look-alike type on the search_path changes nothing
RESET ROLE;
CREATE SCHEMA regress_lookalike AUTHORIZATION regress_sw_guest_token;
SET ROLE regress_sw_guest_token;
CREATE TYPE regress_lookalike.sw_guest_token AS (token int);
SET search_path = regress_lookalike, public;
SELECT pg_typeof(t) = 'public.sw_guest_token'::regtype AS ok
FROM public.sw_create_guest_token(ARRAY['11111111-1111-1111-1111-111111111111']::uuid[]) t;
RESET search_path;
-- pg_read_all_settings may see them
RESET ROLE;
GRANT pg_read_all_settings TO regress_sw_guest_token;
SET ROLE regress_sw_guest_token;
SELECT count(*) FROM pg_settings WHERE name LIKE 'sw\_guest\_token.%';
RESET ROLE;
DROP TYPE regress_lookalike.sw_guest_token;
DROP SCHEMA regress_lookalike;
DROP OWNED BY regress_sw_guest_token;
DROP ROLE regress_sw_guest_token;
-- whatever default privileges grant when the extension is created, nobody but
-- its owner may spend money, even with look-alikes in its schema that would
-- match better
BEGIN;
DROP EXTENSION sw_guest_token;
CREATE SCHEMA regress_lookalike;
CREATE FUNCTION regress_lookalike.format(text, regprocedure, text) RETURNS text LANGUAGE sql AS $$ SELECT 'SET work_mem TO DEFAULT' $$;
CREATE FUNCTION regress_lookalike.differs(oid, int) RETURNS boolean LANGUAGE sql AS $$ SELECT false $$;
CREATE OPERATOR regress_lookalike.= (LEFTARG = oid, RIGHTARG = int, FUNCTION = regress_lookalike.differs);
CREATE ROLE regress_anon;
CREATE ROLE "regress_""odd"" Role";
CREATE ROLE "regress_PUBLIC";
ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO regress_anon;
ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO "regress_PUBLIC" WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES IN SCHEMA regress_lookalike GRANT EXECUTE ON FUNCTIONS TO "regress_""odd"" Role", regress_anon WITH GRANT OPTION;
CREATE EXTENSION sw_guest_token SCHEMA regress_lookalike;
CREATE FUNCTION regress_lookalike.grants() RETURNS TABLE (function text, grantees text) LANGUAGE sql AS $$
	SELECT p.proname, string_agg(g, ' ' ORDER BY g COLLATE "C")
	FROM pg_proc p, aclexplode(p.proacl) a,
		CAST(CASE a.grantee WHEN 0 THEN 'PUBLIC' WHEN p.proowner THEN 'owner' ELSE a.grantee::regrole::text END AS text) g
	WHERE p.proname ~ '^sw_' AND p.pronamespace = 'regress_lookalike'::regnamespace
	GROUP BY p.proname
	ORDER BY p.proname
$$;
SELECT * FROM regress_lookalike.grants();
-- what default privileges have taken from PUBLIC is not given back
DROP EXTENSION sw_guest_token;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
CREATE EXTENSION sw_guest_token SCHEMA regress_lookalike;
SELECT * FROM regress_lookalike.grants();
-- a later grant counts
GRANT EXECUTE ON FUNCTION regress_lookalike.sw_refresh_guest_token TO regress_anon;
SELECT * FROM regress_lookalike.grants() WHERE function = 'sw_refresh_guest_token';
ROLLBACK;
