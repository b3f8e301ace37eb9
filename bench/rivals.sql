-- What people would use instead of the extension, each at its best: with one
-- kept-alive connection, and the tokens extracted from the answer.

-- PL/Python with requests: one call.
CREATE FUNCTION requests_call(url text, ca text) RETURNS sw_guest_token
LANGUAGE plpython3u AS $$
if "session" not in SD:
    import requests
    SD["session"] = requests.Session()
    SD["session"].auth = ("00000000-0000-4000-8000-000000000000", "PTbench")
answer = SD["session"].post(
    url, json={"allowed_addresses": ["11111111-2222-3333-4444-555555555555"]},
    verify=ca or True, timeout=10)
answer.raise_for_status()
pair = answer.json()
return pair["token"], pair["refresh_token"]
$$;

-- The same for many calls, from a pool of threads.
CREATE FUNCTION requests_pool(url text, n int, size int) RETURNS int
LANGUAGE plpython3u AS $$
import concurrent.futures
import requests

session = requests.Session()
session.auth = ("00000000-0000-4000-8000-000000000000", "PTbench")
session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=size))


def call(i):
    answer = session.post(
        url, json={"allowed_addresses": ["11111111-2222-3333-4444-555555555555"]},
        timeout=10)
    answer.raise_for_status()
    pair = answer.json()
    return pair["token"], pair["refresh_token"]


with concurrent.futures.ThreadPoolExecutor(size) as pool:
    return len(list(pool.map(call, range(n))))
$$;

-- The extension, but one call after the other.
CREATE FUNCTION one_by_one(n int) RETURNS int
LANGUAGE plpgsql AS $$
DECLARE
    tokens int := 0;
BEGIN
    FOR i IN 1 .. n LOOP
        PERFORM token FROM sw_create_guest_token('{11111111-2222-3333-4444-555555555555}');
        tokens := tokens + 1;
    END LOOP;
    RETURN tokens;
END
$$;
