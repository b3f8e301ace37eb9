--
-- sw_create_guest_tokens(): many at once.
--
LOAD 'sw_guest_token';
\getenv sandbox_url SANDBOX_URL
\getenv sandbox_project_id SANDBOX_PROJECT_ID
\getenv sandbox_api_token SANDBOX_API_TOKEN
SET sw_guest_token.base_url = :'sandbox_url';
SET sw_guest_token.project_id = :'sandbox_project_id';
SET sw_guest_token.api_token = :'sandbox_api_token';
-- no request, no row
SELECT * FROM sw_create_guest_tokens('{}');
SELECT * FROM sw_create_guest_tokens(ARRAY[]::sw_guest_token_request[]);
-- what concerns the whole call
SELECT * FROM sw_create_guest_tokens(NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM sw_create_guest_tokens(array_fill(NULL::sw_guest_token_request, '{2,2}'));
\echo :LAST_ERROR_SQLSTATE
-- one row a request
SELECT count(*), count(DISTINCT ordinality), min(ordinality), max(ordinality),
	   count(DISTINCT token), count(DISTINCT refresh_token), count(error_code), count(error)
FROM sw_create_guest_tokens(ARRAY(
	SELECT ROW(ARRAY[gen_random_uuid()], NULL, 'us-central', NULL)::sw_guest_token_request
	FROM generate_series(1, 100)));
-- a request that fails is a row
SELECT ordinality, token IS NOT NULL AS token, refresh_token IS NOT NULL AS refresh_token, error_code, error
FROM sw_create_guest_tokens(ARRAY[
	NULL,
	ROW(NULL, NULL, NULL, NULL),
	ROW('{}', NULL, NULL, NULL),
	ROW('{NULL}', NULL, NULL, NULL),
	ROW('{{11111111-1111-1111-1111-111111111111}}', NULL, NULL, NULL),
	ROW('{11111111-1111-1111-1111-111111111111}', 1, NULL, NULL),
	ROW('{11111111-1111-1111-1111-111111111111}', NULL, '', NULL),
	ROW('{11111111-1111-1111-1111-111111111111}', NULL, NULL, ''),
	ROW('{11111111-1111-1111-1111-111111111111}', NULL, 'nowhere', NULL),
	ROW('{11111111-1111-1111-1111-111111111111}', NULL, NULL, 'nowhere'),
	ROW('{11111111-1111-1111-1111-111111111111}', 2147483647, 'us-central', 'us-central'),
	ROW('{11111111-1111-1111-1111-111111111111}', NULL, NULL, NULL)
]::sw_guest_token_request[])
ORDER BY ordinality;
-- whatever the lower bound, ordinality counts from 1
SELECT ordinality, error_code FROM sw_create_guest_tokens(
	array_fill(NULL::sw_guest_token_request, '{2}', '{5}')) ORDER BY ordinality;
-- after a 401 nothing more is sent: later requests get its error, or their own
SET sw_guest_token.max_concurrency = 1;
SELECT set_config('sw_guest_token.base_url', :'sandbox_url' || '/script/201-then-401-then-201', false) IS NOT NULL AS set;
SELECT ordinality, token IS NOT NULL AS token, error_code, error
FROM sw_create_guest_tokens(ARRAY[
	ROW('{11111111-1111-1111-1111-111111111111}', NULL, NULL, NULL),
	ROW('{11111111-1111-1111-1111-111111111111}', NULL, NULL, NULL),
	ROW('{11111111-1111-1111-1111-111111111111}', NULL, NULL, NULL),
	ROW('{}', NULL, NULL, NULL),
	ROW('{11111111-1111-1111-1111-111111111111}', NULL, NULL, NULL)
]::sw_guest_token_request[])
ORDER BY ordinality;
SELECT set_config('sw_guest_token.base_url', :'sandbox_url' || '/script/403-then-201', false) IS NOT NULL AS set;
SELECT ordinality, token IS NOT NULL AS token, error_code, error
FROM sw_create_guest_tokens(array_fill(
	ROW('{11111111-1111-1111-1111-111111111111}', NULL, NULL, NULL)::sw_guest_token_request, '{3}')) ORDER BY ordinality;
-- a failure of another kind stops nothing
SELECT set_config('sw_guest_token.base_url', :'sandbox_url' || '/script/404-then-201', false) IS NOT NULL AS set;
SELECT ordinality, token IS NOT NULL AS token, error_code, error
FROM sw_create_guest_tokens(array_fill(
	ROW('{11111111-1111-1111-1111-111111111111}', NULL, NULL, NULL)::sw_guest_token_request, '{3}')) ORDER BY ordinality;
-- anywhere in a query
SET sw_guest_token.base_url = :'sandbox_url';
RESET sw_guest_token.max_concurrency;
SELECT count(*) FROM (SELECT * FROM sw_create_guest_tokens(array_fill(
	ROW('{11111111-1111-1111-1111-111111111111}', NULL, NULL, NULL)::sw_guest_token_request, '{30}')) LIMIT 7) s;
BEGIN READ ONLY;
SELECT count(token) FROM sw_create_guest_tokens(array_fill(
	ROW('{11111111-1111-1111-1111-111111111111}', NULL, NULL, NULL)::sw_guest_token_request, '{3}'));
COMMIT;
