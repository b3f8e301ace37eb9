-- Runs :statement, which asks for :n tokens, in a transaction that is rolled back.
-- Prints the microseconds that it took.
SELECT token FROM sw_create_guest_token('{11111111-2222-3333-4444-555555555555}') \g /dev/null
SELECT sum(issued) AS before FROM sw_guest_token_stat \gset
BEGIN;
\o /dev/null
SELECT clock_timestamp() AS began \gset
:statement;
SELECT round(extract(epoch FROM clock_timestamp() - :'began') * 1000000) AS us,
       sum(issued) - :before = :n AS complete
  FROM sw_guest_token_stat \gset
\o
ROLLBACK;
\if :complete
\echo :us
\else
DO $$BEGIN RAISE 'not all tokens came'; END$$;
\endif
