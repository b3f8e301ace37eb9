-- pgsql-http, with JSON parsed by the server.
CREATE EXTENSION http;

-- It closes the connection after each call unless this setting is on;
-- CURLOPT_TCP_KEEPALIVE is about TCP's probes.
CREATE FUNCTION http_keep_alive(ca text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('http.keepalive', 'on', false);
    IF ca <> '' THEN
        PERFORM http_set_curlopt('CURLOPT_CAINFO', ca);
    END IF;
END
$$;

CREATE FUNCTION http_call(url text) RETURNS sw_guest_token
LANGUAGE plpgsql AS $$
DECLARE
    answer http_response;
    pair jsonb;
BEGIN
    answer := http((
        'POST', url,
        ARRAY[http_header('Accept', 'application/json'), http_header('Authorization',
            'Basic MDAwMDAwMDAtMDAwMC00MDAwLTgwMDAtMDAwMDAwMDAwMDAwOlBUYmVuY2g=')],
        'application/json',
        '{"allowed_addresses":["11111111-2222-3333-4444-555555555555"]}')::http_request);
    IF answer.status <> 201 THEN
        RAISE EXCEPTION 'status %', answer.status;
    END IF;
    pair := answer.content;
    RETURN ROW(pair ->> 'token', pair ->> 'refresh_token');
END
$$;
