--
-- sw_token_header(): decodes a token's header.
--
CREATE FUNCTION pg_temp.token(header text) RETURNS text LANGUAGE sql AS $$
	SELECT rtrim(translate(replace(encode(convert_to(header, 'UTF8'), 'base64'), E'\n', ''), '+/', '-_'), '=') || '.payload'
$$;
SELECT sw_token_header('eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIiwiY2giOiJ1cy1jZW50cmFsIiwidHlwIjoiU0FUIn0..iv.ciphertext.tag');
SELECT sw_token_header(pg_temp.token('{}')), sw_token_header(pg_temp.token(' {"a": [1, {"b": null}]} '));
SELECT sw_token_header(pg_temp.token('{"?": "???>>>"}')), sw_token_header(NULL) IS NULL AS strict;
SELECT sw_token_header(pg_temp.token('{"a": "\u0041"}'));
-- no valid header
SELECT sw_token_header('');
\echo :LAST_ERROR_SQLSTATE
SELECT sw_token_header('.');
\echo :LAST_ERROR_SQLSTATE
SELECT sw_token_header('eyJhbGciOiJkaXIifQ');
\echo :LAST_ERROR_SQLSTATE
SELECT sw_token_header('e30=.');
\echo :LAST_ERROR_SQLSTATE
SELECT sw_token_header('e 30.');
\echo :LAST_ERROR_SQLSTATE
SELECT sw_token_header('e3+/.');
\echo :LAST_ERROR_SQLSTATE
SELECT sw_token_header('e.');
\echo :LAST_ERROR_SQLSTATE
SELECT sw_token_header('gICA.');
\echo :LAST_ERROR_SQLSTATE
SELECT sw_token_header(pg_temp.token('[]'));
\echo :LAST_ERROR_SQLSTATE
SELECT sw_token_header(pg_temp.token('"text"'));
\echo :LAST_ERROR_SQLSTATE
SELECT sw_token_header(pg_temp.token('{"a": 1} {}'));
\echo :LAST_ERROR_SQLSTATE
SELECT sw_token_header(pg_temp.token('{"a": NaN}'));
\echo :LAST_ERROR_SQLSTATE
SELECT sw_token_header(pg_temp.token('{"a": ' || repeat('[', 100000) || repeat(']', 100000) || '}'));
\echo :LAST_ERROR_SQLSTATE
SELECT sw_token_header(repeat('A', 100000000) || '.');
\echo :LAST_ERROR_SQLSTATE
\set VERBOSITY terse
SELECT sw_token_header(pg_temp.token('{"a": "\u0000"}'));
\echo :LAST_ERROR_SQLSTATE
