--
-- sw_refresh_guest_token(): a new pair for an old refresh token.
--
LOAD 'sw_guest_token';
\getenv sandbox_url SANDBOX_URL
\getenv sandbox_project_id SANDBOX_PROJECT_ID
\getenv sandbox_api_token SANDBOX_API_TOKEN
SET sw_guest_token.base_url = :'sandbox_url';
SET sw_guest_token.project_id = :'sandbox_project_id';
SET sw_guest_token.api_token = :'sandbox_api_token';
\set address '11111111-1111-1111-1111-111111111111'
SELECT old.token <> new.token AND old.refresh_token <> new.refresh_token AS renewed,
	   sw_token_header(new.token)->>'typ' AS typ, sw_token_header(new.refresh_token)->>'typ' AS refresh_typ
FROM sw_create_guest_token(ARRAY[:'address']::uuid[]) old,
	 LATERAL sw_refresh_guest_token(old.refresh_token) new;
-- the API's refusals
SELECT new.token
FROM sw_create_guest_token(ARRAY[:'address']::uuid[]) old,
	 LATERAL sw_refresh_guest_token(old.token) new;
\echo :LAST_ERROR_SQLSTATE
SELECT sw_refresh_guest_token('not a token');
\echo :LAST_ERROR_SQLSTATE
-- the token that was passed in is blanked when it comes back
SELECT set_config('sw_guest_token.base_url', :'sandbox_url' || '/script/echo,status=404', false) IS NOT NULL AS set;
SELECT sw_refresh_guest_token('a token "in" quotes');
