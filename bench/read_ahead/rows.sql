-- :n rows for the statements.
TRUNCATE visitor;
INSERT INTO visitor
SELECT i, ARRAY[gen_random_uuid()] FROM generate_series(1, :n) i;
VACUUM ANALYZE visitor;
