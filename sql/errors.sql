--
-- Errors: one SQLSTATE for each way in which the stand-in API is told to fail.
--
LOAD 'sw_guest_token';
\getenv sandbox_url SANDBOX_URL
\getenv sandbox_project_id SANDBOX_PROJECT_ID
\getenv sandbox_api_token SANDBOX_API_TOKEN
SET sw_guest_token.base_url = :'sandbox_url';
SET sw_guest_token.project_id = :'sandbox_project_id';
SET sw_guest_token.api_token = :'sandbox_api_token';
SET sw_guest_token.max_retries = 1;
SET sw_guest_token.timeout = '60s';
\set address '11111111-1111-1111-1111-111111111111'
-- the API's own judgement: an unknown region, wrong credentials
SELECT sw_create_guest_token(ARRAY[:'address']::uuid[], region => 'nowhere');
\echo :LAST_ERROR_SQLSTATE
SELECT sw_create_guest_token(ARRAY[:'address']::uuid[], region => 'nowhere', ch => 'nowhere');
\echo :LAST_ERROR_SQLSTATE
SET sw_guest_token.api_token = 'PTwrong';
SELECT sw_create_guest_token(ARRAY[:'address']::uuid[]);
\echo :LAST_ERROR_SQLSTATE
SET sw_guest_token.api_token = :'sandbox_api_token';
-- how the API fails when it is told to
CREATE FUNCTION pg_temp.fail(script text) RETURNS TABLE (code text, message text, detail text, hint text) AS $$
DECLARE
	base_url text := current_setting('sw_guest_token.base_url');
BEGIN
	PERFORM set_config('sw_guest_token.base_url', base_url || '/script/' || script, true);
	PERFORM sw_create_guest_token(ARRAY['11111111-1111-1111-1111-111111111111']::uuid[]);
	PERFORM set_config('sw_guest_token.base_url', base_url, true);
	code := 'none';
	RETURN NEXT;
EXCEPTION WHEN OTHERS THEN
	code := SQLSTATE;
	message := SQLERRM;
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN NEXT;
END
$$ LANGUAGE plpgsql;
\pset format unaligned
\pset footer off
-- statuses
SELECT status, f.*
FROM unnest(ARRAY[200, 202, 204, 301, 302, 304, 307, 400, 401, 402, 403, 404, 405, 408, 409, 410, 415, 422,
				  429, 500, 501, 502, 503, 504, 505, 599]) status,
	 LATERAL pg_temp.fail(status || ',retry-after=0') f;
-- a status with a body, which may hold octal escapes
CREATE FUNCTION pg_temp.answer(script text, body bytea)
RETURNS TABLE (code text, message text, detail text, hint text) LANGUAGE sql AS $$
	SELECT f.* FROM pg_temp.fail(script || ',body=' || regexp_replace(encode(body, 'hex'), '..', '%\&', 'g')) f
$$;
-- a 422 in all its shapes; a body with any other is shown as it is
SELECT f.* FROM pg_temp.answer('422', '{"errors":[{"message":"No."}]}') f;
SELECT f.* FROM pg_temp.answer('422', '{"errors":[{"message":"First","attribute":null,"code":"a"},{"message":"Second","attribute":"ch","url":"u"}]}') f;
SELECT f.* FROM pg_temp.answer('422', '{"errors":[{"message":"First","url":"https://example.com/a"},7,{}]}') f;
SELECT f.* FROM pg_temp.answer('422', '{"errors":[{"message":""}]}') f;
SELECT f.* FROM pg_temp.answer('422', '{"errors":[]}') f;
SELECT f.* FROM pg_temp.answer('422', '{"errors":[7]}') f;
SELECT f.* FROM pg_temp.answer('422', '{"errors":[{"message":7}]}') f;
SELECT f.* FROM pg_temp.answer('422', '') f;
SELECT f.* FROM pg_temp.answer('422', 'not JSON') f;
SELECT f.* FROM pg_temp.answer('422', 'a\001b\012  c\377d\342\200\256e') f;
SELECT f.* FROM pg_temp.answer('422', '{"errors":[{"message":"a\300\200b\\u0000c\\u0007d"}]}') f;
SELECT f.* FROM pg_temp.answer('422', '{"errors":[{"message":"a\\u034f\\u3164\\ufe0f\\ufff9\\ud834\\udd73b"}]}') f;
-- at most 200 characters of a body are shown, and at most ten errors
SELECT length(detail) FROM pg_temp.fail('500,retry-after=0,size=5000');
SELECT code, length(message), array_length(string_to_array(detail, E'\n'), 1) AS entries,
	   length(split_part(detail, E'\n', 10)) AS entry
FROM pg_temp.answer('422', convert_to('{"errors":[' || repeat('{"message":"' || repeat('m', 300) || '"},', 11) || '7]}', 'UTF8'));
-- a status keeps its SQLSTATE no matter how its body ends
SELECT script, f.code FROM unnest(ARRAY['401,size=2000000', 'cut,status=404', 'cut,status=422', 'cut,status=200']) script,
	 LATERAL pg_temp.fail(script) f;
-- a 201 that is not valid: nothing of its body is shown
SELECT type, f.code, f.message, f.detail
FROM unnest(ARRAY['', 'text%2Fhtml', 'application%2Fjsonx', 'application']) type,
	 LATERAL pg_temp.fail('201,type=' || type) f;
SELECT body, f.code, f.detail
FROM unnest(ARRAY['', ' ', '7', '[]', 'null', '{}', 'x',
				  '{"token":"a"}',
				  '{"token":"a","refresh_token":7}',
				  '{"token":"","refresh_token":"b"}',
				  '{"token":null,"refresh_token":"b"}',
				  '{"token":"a","token":"a","refresh_token":"b"}',
				  '{"token":"a","refresh_token":"b","x":[{"y":1,"\\u0079":2}]}',
				  '{"token":"a","refresh_token":"b"} x',
				  '{"token":"a","refresh_token":"b"}{}',
				  '{"token":"a","refresh_token":"b"}\000',
				  '{"token":"a","refresh_token":"b",}',
				  '{"token":"a" "refresh_token":"b"}',
				  '{"token":"a","refresh_token":"b","x":NaN}',
				  '{"token":"a","refresh_token":"b","x":-Infinity}',
				  '{"token":"a","refresh_token":"b","x":True}',
				  '{"token":"a","refresh_token":"b","x":01}',
				  '{"token":"a","refresh_token":"b","x":1.}',
				  '{"token":"a","refresh_token":"b","x":.5}',
				  '{"token":"a","refresh_token":"b","x":+1}',
				  '{"token":"a","refresh_token":"b","x":1e}',
				  '{"token":"a","refresh_token":"b","x":"\\x"}',
				  '{"token":"a","refresh_token":"b","x":"\\ud800"}',
				  '{"token":"a","refresh_token":"b","x":"\300\200"}',
				  '{"token":"a","refresh_token":"b","x":"\355\240\200"}',
				  '{"token":"a","refresh_token":"b","x":"\364\220\200\200"}',
				  '{"token":"a","refresh_token":"b","x":"\011"}',
				  '{"token":"a","refresh_token":"b"/**/}',
				  '{"token":"a\\u0000b","refresh_token":"b"}',
				  '{"token":"a\\u0007b","refresh_token":"b"}',
				  '{"token":"\\u007f","refresh_token":"b"}',
				  '{"token":"\303\244","refresh_token":"b"}',
				  '{"token\\u0000":"a","refresh_token":"b"}',
				  '{''token'':"a","refresh_token":"b"}',
				  '\357\273\277{"token":"a","refresh_token":"b"}',
				  '{"token":"a","refresh_token":"b',
				  '{"token":"a","refresh_token":"b"']::bytea[]) WITH ORDINALITY b(bytes, i),
	 LATERAL encode(bytes, 'escape') body,
	 LATERAL pg_temp.answer('201', bytes) f
ORDER BY i;
SELECT script, f.code, f.message, f.detail
FROM unnest(ARRAY['201,size=1048577', 'endless', 'garbage', 'bigheader', 'endlessheaders']) script,
	 LATERAL pg_temp.fail(script) f;
SELECT f.code, f.detail FROM pg_temp.fail('201,refresh=b,token=' || repeat('a', 65537)) f;
-- and some that are valid nevertheless
SELECT body, f.code
FROM unnest(ARRAY['\015\012 {"token":"a","refresh_token":"b"}\015\012',
				  '{"token":"a","refresh_token":"\\u0061\\/","x":[{"y":-1.5e+3,"z":{"y":0}},true,false,null,"\\ud83d\\ude00\303\244"]}']::bytea[]) bytes,
	 LATERAL encode(bytes, 'escape') body,
	 LATERAL pg_temp.answer('201', bytes) f;
SELECT left(script, 40) AS script, f.code
FROM unnest(ARRAY['201,type=Application%2FJSON;charset=utf-8', '201,type=application%2Fjson%20;%20x', 'early', 'http10', 'drip,ms=1',
				  '201,size=1048576', '201,refresh=b,token=' || repeat('a', 1000)]) script,
	 LATERAL pg_temp.fail(script) f;
SELECT f.code FROM pg_temp.fail('201,refresh=b,token=' || repeat('a', 65536)) f;
-- broken connections
SELECT script, f.code, f.message
FROM unnest(ARRAY['close', 'reset', 'cut', 'cutheaders', 'close-then-201']) script,
	 LATERAL pg_temp.fail(script) f;
-- no connection; here and below the HINT names the doctor
\getenv port SANDBOX_PORT
\set nowhere http://127.0.0.1:1/ :port
SET sw_guest_token.base_url = :'nowhere';
SELECT f.code, f.message, f.hint FROM pg_temp.fail('201') f;
SET sw_guest_token.base_url = 'https://no-such-host.invalid';
SELECT f.code, f.message, f.hint FROM pg_temp.fail('201') f;
SET sw_guest_token.base_url = :'sandbox_url';
SELECT set_config('sw_guest_token.base_url', replace(:'sandbox_url', 'http:', 'https:'), false) IS NOT NULL AS tls_to_a_plain_port;
SELECT f.code, f.message, f.hint FROM pg_temp.fail('201') f;
SET sw_guest_token.base_url = :'sandbox_url';
-- out of time
SET sw_guest_token.timeout = '50ms';
SELECT f.code, f.message, f.detail, f.hint FROM pg_temp.fail('hang') f;
SET sw_guest_token.timeout = '60s';
-- a pause that is too long is not begun
SELECT f.code, f.message, f.detail FROM pg_temp.fail('503,retry-after=3600') f;
-- a response that is not valid: not HTTP, not JSON, not a token
SELECT script, f.code, f.hint
FROM unnest(ARRAY['garbage', '201,type=text%2Fhtml', '201,token=%C3%A4', 'close', '503,retry-after=3600']) script,
	 LATERAL pg_temp.fail(script) f;
-- secrets that are sent back are blanked
SELECT f.* FROM pg_temp.fail('echo') f;
SELECT f.* FROM pg_temp.fail('echo,raw=1,status=404') f;
SELECT f.* FROM pg_temp.fail('echo,shape=errors,status=422') f;
-- escaped, in another case, or cut off; and tokens that were issued to others
SET sw_guest_token.api_token = 'PT+secret/of%41+our=own';
SELECT detail FROM unnest(ARRAY['PT+secret/of%41+our=own', '"PT+secret\\/of%41+our=own"', '\\"PT\\u002bsecret\\\\/of%2541+our=own\\"',
								'PT%2Bsecret%2Fof%2541%2bour%3Down', 'PT&#43;secret&#x2f;of%41&#43;our&#61;own', 'pt+SECRET/of%41+our=own',
								'PT+secret/of%41...', 'eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..iv.text.tag',
								'eyAiYWxnIjoiZGlyIiwiZW5jIjoiQTI1NkdDTSJ9%2E%2Eiv%2Etext%2Etag', '\\u0065yJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..iv.text.tag', 'no secret: eye']::bytea[]) body,
	 LATERAL pg_temp.answer('404', body);
SET sw_guest_token.api_token = :'sandbox_api_token';
-- and the session is as good as new
SELECT token IS NOT NULL AS ok FROM sw_create_guest_token(ARRAY[:'address']::uuid[]);
