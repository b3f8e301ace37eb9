--
-- One token at a time, where a failure is a result.
--
LOAD 'sw_guest_token';
\getenv sandbox_url SANDBOX_URL
\getenv sandbox_project_id SANDBOX_PROJECT_ID
\getenv sandbox_api_token SANDBOX_API_TOKEN
SET sw_guest_token.base_url = :'sandbox_url';
SET sw_guest_token.project_id = :'sandbox_project_id';
SET sw_guest_token.api_token = :'sandbox_api_token';
SET sw_guest_token.max_retries = 0;
\set address '11111111-1111-1111-1111-111111111111'
\d sw_guest_token_result
SELECT token IS NOT NULL AS token, refresh_token IS NOT NULL AS refresh_token, error_code, error
FROM sw_try_create_guest_token(ARRAY[:'address']::uuid[], expires_in => '30 minutes',
							   region => 'us-central', ch => 'us-central');
-- invalid arguments, row by row, beside valid ones
SELECT name, token IS NOT NULL AS token, error_code, error
FROM (VALUES ('a null', NULL::uuid[]), ('none', '{}'), ('one', ARRAY[:'address']::uuid[]),
			 ('a null element', '{NULL}')) AS v (name, addresses),
	 sw_try_create_guest_token(addresses) AS t;
SELECT * FROM sw_try_create_guest_token(ARRAY[:'address']::uuid[], expire_at => 3600);
SELECT * FROM sw_try_create_guest_token(ARRAY[:'address']::uuid[], region => '');
-- what the API says
\set url :sandbox_url '/script/422-then-401-then-404-then-429-then-503-then-201,body=x-then-close-then-201'
SET sw_guest_token.base_url = :'url';
SELECT i, (t).token IS NOT NULL AS token, (t).error_code, (t).error
FROM (SELECT i, sw_try_create_guest_token(ARRAY[:'address']::uuid[]) AS t FROM generate_series(1, 8) AS i OFFSET 0) AS s;
\getenv port SANDBOX_PORT
\set nowhere http://127.0.0.1:1/ :port
SET sw_guest_token.base_url = :'nowhere';
SELECT * FROM sw_try_create_guest_token(ARRAY[:'address']::uuid[]);
-- errors of the settings and the statement's time limits are still raised
\set VERBOSITY terse
SET sw_guest_token.base_url = 'http://example.com';
SELECT * FROM sw_try_create_guest_token(ARRAY[:'address']::uuid[]);
SET sw_guest_token.base_url = 'https://127.0.0.1:1';
SET sw_guest_token.ca_file = '/nowhere';
\set VERBOSITY sqlstate
SELECT * FROM sw_try_create_guest_token(ARRAY[:'address']::uuid[]);
RESET sw_guest_token.ca_file;
\set VERBOSITY terse
\set url :sandbox_url '/script/hang'
SET sw_guest_token.base_url = :'url';
SET statement_timeout = '100ms';
SELECT * FROM sw_try_create_guest_token(ARRAY[:'address']::uuid[]);
