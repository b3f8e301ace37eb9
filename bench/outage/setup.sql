-- What the clients of script/outage use, created anew before each run.
SET client_min_messages = warning;
DROP TABLE IF EXISTS account, hot_row, guest, call, oldest;

CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL) WITH (fillfactor = 50);
INSERT INTO account SELECT i, 0 FROM generate_series(1, 100000) AS i;
CREATE TABLE hot_row (n int NOT NULL);
INSERT INTO hot_row VALUES (0);

CREATE TABLE guest (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, addresses uuid[], token text, refresh_token text);
CREATE TRIGGER issue_token BEFORE INSERT ON guest FOR EACH ROW
	EXECUTE FUNCTION sw_guest_token_trigger('addresses', 'token', 'refresh_token');

-- The inserts' outcomes, and the ages of the two oldest transactions in seconds.
CREATE UNLOGGED TABLE call (began timestamptz, ended timestamptz, sqlstate text);
CREATE UNLOGGED TABLE oldest (at timestamptz, oldest float8, second float8);
VACUUM ANALYZE account;

-- One insert.  An error is recorded, not raised: it would end pgbench's client.
CREATE OR REPLACE FUNCTION insert_guest(hot_row_first boolean) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	began timestamptz := clock_timestamp();
	code text := '00000';
BEGIN
	IF hot_row_first THEN
		UPDATE hot_row SET n = n + 1;
	END IF;
	BEGIN
		INSERT INTO guest (addresses) VALUES ('{11111111-1111-4111-8111-111111111111}');
	EXCEPTION WHEN OTHERS OR query_canceled THEN
		code := SQLSTATE;
	END;
	INSERT INTO call VALUES (began, clock_timestamp(), code);
END
$$;
