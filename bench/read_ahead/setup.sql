-- What script/bench --read-ahead measures besides the forms: a query of one row,
-- and one that asks for no token, which is planned each time.
CREATE TABLE visitor (id int PRIMARY KEY, addresses uuid[], token text, refresh_token text);
CREATE TABLE arriving (id int, addresses uuid[]);
CREATE TABLE issued (visitor int, token text, refresh_token text);

CREATE FUNCTION issue_all() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO issued
    SELECT i.id, t.* FROM inserted i, sw_create_guest_token(i.addresses) t;
    RETURN NULL;
END
$$;
CREATE TRIGGER issue_all AFTER INSERT ON arriving REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION issue_all();

CREATE FUNCTION one_row(n int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    tokens int := 0;
    pair record;
BEGIN
    FOR i IN 1 .. n LOOP
        SELECT t.* INTO pair FROM visitor v, sw_create_guest_token(v.addresses) t WHERE v.id = 1;
        tokens := tokens + (pair.token IS NOT NULL)::int;
    END LOOP;
    RETURN tokens;
END
$$;

CREATE FUNCTION another_query(n int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    found int;
BEGIN
    FOR i IN 1 .. n LOOP
        EXECUTE 'SELECT v.id FROM visitor v JOIN visitor w USING (id) WHERE v.id = 1' INTO found;
    END LOOP;
    RETURN n;
END
$$;
