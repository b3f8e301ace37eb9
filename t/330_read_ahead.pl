# Queries that read ahead: which ones do, how far, and that nothing else changes.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use SwTest;
use Test::More;

my $node = start_server('read_ahead', "sw_guest_token.max_retries = 0\n");
my $sandbox = start_sandbox();
use_sandbox($node, $sandbox);

# the n-th visitor's address ends with n
$node->safe_psql('postgres', <<'EOC');
CREATE TABLE visitor (id int PRIMARY KEY, addresses uuid[], token text, refresh_token text);
INSERT INTO visitor
	SELECT n, ARRAY[('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid]
	FROM generate_series(1, 40) n;
CREATE TABLE source AS SELECT id, addresses FROM visitor;
CREATE TABLE token (id serial, visitor int, token text, refresh_token text);
CREATE TABLE part (id int, addresses uuid[], token text) PARTITION BY RANGE (id);
CREATE TABLE part1 PARTITION OF part FOR VALUES FROM (0) TO (20);
CREATE TABLE part2 PARTITION OF part FOR VALUES FROM (20) TO (100);
INSERT INTO part SELECT id, addresses FROM visitor;
CREATE INDEX ON source (id);
CREATE VIEW with_barrier WITH (security_barrier) AS
	SELECT v.id, t.token FROM visitor v, sw_create_guest_token(v.addresses) t WHERE t.token > 'a';
CREATE VIEW with_token AS SELECT v.id, (sw_create_guest_token(v.addresses)).* FROM visitor v;
ANALYZE;
EOC

my $ON = 'SET sw_guest_token.read_ahead = on';
my $url;

sub use_script
{
	$url = $sandbox->script($_[0]);
	$sandbox->reset;
	return;
}

# Runs statements with read_ahead, and with the URL of use_script() if there is one.
sub run_ahead
{
	return run_session($node, 'LOAD \'sw_guest_token\'', $ON,
		($url ? "SET sw_guest_token.base_url = '$url'" : ()), @_);
}

# The plan of a statement.
sub plan_of
{
	return run_ahead('SET enable_hashjoin = off', 'SET enable_mergejoin = off', "EXPLAIN (COSTS OFF) $_[0]")->{out};
}

#
# Forms of queries
#

my $FUNCTION = 'sw_create_guest_token(v.addresses)';
my @forms = (
	[ 'a target list', "SELECT v.id, ($FUNCTION).token FROM visitor v", 40 ],
	[ 'a bare call', "SELECT v.id, $FUNCTION FROM visitor v", 40 ],
	[ 'all columns of a call', "SELECT v.id, ($FUNCTION).* FROM visitor v", 40 ],
	[ 'two calls', "SELECT ($FUNCTION).token, ($FUNCTION).token FROM visitor v", 80 ],
	[ 'the other function', 'SELECT v.id, (sw_try_create_guest_token(v.addresses)).token FROM visitor v', 40 ],
	[ 'a call in an expression', "SELECT v.id || upper(($FUNCTION).token) FROM visitor v", 40 ],
	[ 'FROM', "SELECT v.id, t.* FROM visitor v, $FUNCTION t", 40 ],
	[ 'FROM with a filter', "SELECT v.id, t.* FROM visitor v, $FUNCTION t WHERE t.token > 'a'", 40 ],
	[ 'the whole row', "SELECT t, v FROM visitor v, $FUNCTION t", 40 ],
	[ 'LEFT JOIN', "SELECT v.id, t.* FROM visitor v LEFT JOIN LATERAL $FUNCTION t ON true", 40 ],
	[ 'two in FROM', "SELECT v.id, t.*, u.* FROM visitor v, $FUNCTION t, $FUNCTION u", 80 ],
	[ 'constant arguments', "SELECT (sw_create_guest_token('{$ADDRESS}')).token FROM visitor", 40 ],
	[ 'a sub-select', "SELECT v.id, (SELECT token FROM $FUNCTION) FROM visitor v", 40 ],
	[ 'a sub-select with a computed argument',
		"SELECT v.id, (SELECT token FROM sw_create_guest_token(v.addresses || '{$ADDRESS}')) FROM visitor v", 40 ],
	[ 'ORDER BY', "SELECT v.id, ($FUNCTION).token FROM visitor v ORDER BY v.id DESC", 40 ],
	[ 'ORDER BY the token', "SELECT v.id, t.token FROM visitor v, $FUNCTION t ORDER BY t.token", 40 ],
	[ 'an aggregate', "SELECT count(DISTINCT t.token) FROM visitor v, $FUNCTION t", 40 ],
	[ 'JSON', "SELECT r.id, t.* FROM jsonb_to_recordset((SELECT jsonb_agg(v) FROM visitor v)) AS r(id int, addresses uuid[]),"
		. ' sw_try_create_guest_token(r.addresses) t', 40 ],
	[ 'groups', 'SELECT (sw_create_guest_token(array_agg(v.addresses[1]))).token FROM visitor v GROUP BY v.id', 40 ],
	[ 'a window', "SELECT count(*) OVER (ORDER BY v.id), ($FUNCTION).token FROM visitor v", 40 ],
	[ 'a set below', "SELECT ($FUNCTION).token FROM (SELECT addresses, generate_series(1, 2) FROM visitor) v", 80 ],
	[ 'FOR UPDATE', "SELECT v.id, ($FUNCTION).token FROM visitor v FOR UPDATE", 40 ],
	[ 'FROM, FOR UPDATE', "SELECT v.id, t.token FROM visitor v, $FUNCTION t FOR UPDATE OF v", 40 ],
	[ 'UNION ALL', "SELECT ($FUNCTION).token FROM visitor v UNION ALL SELECT ($FUNCTION).token FROM visitor v", 80 ],
	[ 'partitions', "SELECT v.id, ($FUNCTION).token FROM part v", 40 ],
	[ 'a view, which does not tell copies', 'SELECT * FROM with_token', 80 ],
	[ 'a view with a security barrier', "SELECT * FROM with_barrier WHERE lower(token) > 'a'", 40 ],
	[ 'an argument that is computed', "SELECT t.token FROM visitor v, sw_create_guest_token(v.addresses || '{$ADDRESS}') t", 40 ],
	[ 'UPDATE', 'UPDATE visitor SET token = (sw_create_guest_token(addresses)).token', 40 ],
	[ 'UPDATE from a sub-select',
		'UPDATE visitor SET (token, refresh_token) = (SELECT token, refresh_token FROM sw_create_guest_token(addresses))', 40 ],
	[ 'UPDATE from a sub-select with a computed argument',
		'UPDATE visitor SET (token, refresh_token) = (SELECT token, refresh_token FROM sw_create_guest_token(ARRAY[addresses[1]]))', 40 ],
	[ 'UPDATE FROM', "UPDATE visitor SET token = t.token FROM visitor v, $FUNCTION t WHERE v.id = visitor.id", 40 ],
	[ 'UPDATE of partitions', 'UPDATE part SET token = (sw_create_guest_token(addresses)).token', 40 ],
	[ 'INSERT', "INSERT INTO token (visitor, token) SELECT v.id, t.token FROM visitor v, $FUNCTION t", 40 ],
	[ 'INSERT with a list', "INSERT INTO token (visitor, token) SELECT v.id, ($FUNCTION).token FROM visitor v", 40 ],
	[ 'INSERT with RETURNING',
		"INSERT INTO token (visitor, token) SELECT v.id, t.token FROM visitor v, $FUNCTION t RETURNING id", 40 ],
	[ 'INSERT with ON CONFLICT', 'INSERT INTO visitor (id, token) SELECT id, (sw_create_guest_token(addresses)).token FROM source'
		. ' ON CONFLICT (id) DO UPDATE SET token = excluded.token', 40 ],
	[ 'CREATE MATERIALIZED VIEW', "CREATE MATERIALIZED VIEW materialized AS SELECT v.id, t.* FROM visitor v, $FUNCTION t", 40 ],
	[ 'CREATE TABLE AS', "CREATE TEMP TABLE made AS SELECT v.id, t.* FROM visitor v, $FUNCTION t", 40 ],
	[ 'MERGE', "MERGE INTO token USING (SELECT v.id, t.token FROM visitor v, $FUNCTION t) s ON token.visitor = s.id"
		. ' WHEN MATCHED THEN UPDATE SET token = s.token WHEN NOT MATCHED THEN INSERT (visitor, token) VALUES (s.id, s.token)', 40 ],
);
foreach my $form (@forms)
{
	my ($name, $statement, $n) = @$form;

	$node->safe_psql('postgres', 'TRUNCATE token RESTART IDENTITY; UPDATE visitor SET token = NULL');
	like(plan_of($statement), qr/Custom Scan \(Guest Tokens\)/, "$name: the plan has the node");
	use_script('hold,n=16');
	my $session = run_ahead($statement);
	is($session->{err}, '', "$name: it works");
	is($sandbox->attempts, $n, "$name: $n requests are made");
	is($sandbox->journal->{max_in_flight}, 16, "$name: 16 at a time");
}
is(plan_of("SELECT v.id, t.* FROM visitor v, $FUNCTION t"), <<'EOP', 'EXPLAIN shows the node');
Custom Scan (Guest Tokens)
  Calls per Row: 1
  ->  Seq Scan on visitor v
EOP

# planning runs a function that catches an error of its own planning
$node->safe_psql('postgres', 'CREATE FUNCTION caught() RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$'
	  . ' BEGIN PERFORM 1 / 0; RETURN 1; EXCEPTION WHEN division_by_zero THEN RETURN 0; END $$');
like(plan_of("SELECT ($FUNCTION).token FROM visitor v WHERE v.id > caught()"), qr/Guest Tokens/,
	'an error that is caught during planning changes nothing');

# queries that stay row by row
my @others = (
	[ 'WHERE', "SELECT v.id FROM visitor v WHERE ($FUNCTION).token IS NOT NULL" ],
	[ 'CASE', "SELECT CASE WHEN v.id > 20 THEN ($FUNCTION).token END FROM visitor v" ],
	[ 'COALESCE', "SELECT COALESCE(v.token, ($FUNCTION).token) FROM visitor v" ],
	[ 'another volatile function', "SELECT random(), ($FUNCTION).token FROM visitor v" ],
	[ 'a volatile argument', "SELECT (sw_create_guest_token(v.addresses, NULL, random()::text)).token FROM visitor v" ],
	[ 'what is volatile below', "SELECT ($FUNCTION).token FROM (SELECT *, nextval('token_id_seq') FROM visitor OFFSET 0) v" ],
	[ 'what is volatile in a join below', "SELECT ($FUNCTION).token FROM visitor v JOIN source s"
		. " ON s.id = (SELECT nextval('token_id_seq') + v.id)" ],
	[ 'what is volatile and run once', "SELECT ($FUNCTION).token FROM visitor v WHERE v.id < 5 OR v.id > (SELECT nextval('token_id_seq'))" ],
	[ 'too many calls', 'SELECT ' . join(' || ', ("($FUNCTION).token") x 65) . ' FROM visitor v' ],
	[ 'too many columns', 'SELECT ARRAY[' . join(', ', map { "v.token || $_" } 1 .. 1700) . ", ($FUNCTION).token] FROM visitor v" ],
	[ 'too deep an expression', "SELECT ($FUNCTION).token" . ' || v.id::text' x 1200 . ' FROM visitor v' ],
	[ 'a window that ends early', "SELECT * FROM (SELECT row_number() OVER (ORDER BY v.id) AS n, ($FUNCTION).token FROM visitor v) i WHERE n < 5" ],
	[ 'RETURNING', "UPDATE visitor v SET id = id RETURNING ($FUNCTION).token" ],
	[ 'ON CONFLICT', 'INSERT INTO visitor AS v (id) SELECT id FROM source ON CONFLICT (id)'
		. " DO UPDATE SET token = ($FUNCTION).token" ],
	[ 'an action of MERGE', 'MERGE INTO visitor USING source v ON v.id = visitor.id'
		. " WHEN MATCHED THEN UPDATE SET token = ($FUNCTION).token" ],
	[ 'VALUES of INSERT', "INSERT INTO token (token) VALUES ((sw_create_guest_token('{$ADDRESS}')).token),"
		. " ((sw_create_guest_token('{$ADDRESS}')).token)" ],
	[ 'a set-returning function beside it', "SELECT ($FUNCTION).token, generate_series(1, 2) FROM visitor v" ],
	[ 'WITH ORDINALITY', "SELECT t.* FROM visitor v, $FUNCTION WITH ORDINALITY t" ],
	[ 'a CTE', "WITH c AS MATERIALIZED (SELECT ($FUNCTION).token FROM visitor v) SELECT * FROM c" ],
	[ 'a join above', "SELECT t.token FROM visitor v, $FUNCTION t, generate_series(1, 2) OFFSET 1" ],
	[ 'LIMIT over a CTE', "WITH c AS MATERIALIZED (SELECT ($FUNCTION).token FROM visitor v) SELECT * FROM c LIMIT 2" ],
	[ 'a sub-plan', "SELECT ARRAY(SELECT ($FUNCTION).token FROM source v WHERE v.id <= w.id) FROM visitor w" ],
	[ 'LIMIT within LIMIT', "SELECT * FROM (SELECT ($FUNCTION).token FROM visitor v LIMIT 9) s LIMIT 2" ],
	[ 'EXISTS', "SELECT EXISTS (SELECT 1 FROM visitor v, $FUNCTION t WHERE t.token IS NOT NULL)" ],
	[ 'EXISTS over LIMIT', "SELECT EXISTS (SELECT 1 FROM visitor v, $FUNCTION t WHERE t.token IS NOT NULL LIMIT 3)" ],
	[ 'EXISTS over OFFSET', "SELECT EXISTS (SELECT 1 FROM visitor v, $FUNCTION t OFFSET 3)" ],
	[ 'both kinds of calls', "SELECT t.token, ($FUNCTION).token FROM visitor v, $FUNCTION t" ],
	[ 'a cursor', "DECLARE c CURSOR FOR SELECT ($FUNCTION).token FROM visitor v" ],
	[ 'a call that does not depend on the row', "SELECT t.token FROM visitor v, sw_create_guest_token('{$ADDRESS}') t" ],
	[ 'VALUES alone', "SELECT (sw_create_guest_token('{$ADDRESS}')).token" ],
);
unlike(plan_of($_->[1]), qr/Guest Tokens/, "$_->[0]: the plan is as it is without") foreach @others;
my $plan = run_ahead(
	'SET enable_hashjoin = off', 'SET enable_nestloop = off', 'SET enable_sort = off',
	"EXPLAIN (COSTS OFF) SELECT * FROM (SELECT v.id, ($FUNCTION).token FROM source v ORDER BY v.id) s JOIN visitor USING (id)")->{out};
like($plan, qr/Merge Join/, 'a merge join');
unlike($plan, qr/Guest Tokens/, 'a merge join above: the plan is as it is without');
SKIP:
{
	skip 'the server has no file_fdw', 1
	  if $node->safe_psql('postgres', "SELECT count(*) FROM pg_available_extensions WHERE name = 'file_fdw'") eq '0';
	$node->safe_psql('postgres', 'CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;'
		  . "CREATE FOREIGN TABLE file (addresses uuid[]) SERVER files OPTIONS (filename '/dev/null')");
	unlike(plan_of("SELECT ($FUNCTION).token FROM file v"), qr/Guest Tokens/, 'a foreign table: the plan is as it is without');
}

# rows that parallel workers have found
my @parallel = map { "SET $_" } 'parallel_setup_cost = 0', 'parallel_tuple_cost = 0', 'min_parallel_table_scan_size = 0';
like(run_ahead(@parallel, "EXPLAIN (COSTS OFF) SELECT ($FUNCTION).token FROM source v WHERE v.id < 30")->{out},
	qr/Guest Tokens.*Gather.*Parallel Seq Scan/s, 'workers read rows for the node');
use_script('hold,n=16');
is(run_ahead(@parallel, "SELECT count(*) FROM (SELECT ($FUNCTION).token FROM source v WHERE v.id < 33 OFFSET 0) s")->{out}, "32\n",
	'each of which has its call');

# EXPLAIN in all formats
like(run_ahead("EXPLAIN (VERBOSE, COSTS OFF, FORMAT $_->[0]) UPDATE visitor v SET (token, refresh_token) ="
			. " (SELECT token, refresh_token FROM $FUNCTION) WHERE id = 1")->{out},
	$_->[1], "EXPLAIN in $_->[0]")
  foreach
  [ 'text', qr/Custom Scan \(Guest Tokens\)\n +Output: \(\(sw_create_guest_token\(v.addresses, .*\)\)\.refresh_token, .*v\.ctid\n +Calls per Row: 1\n/ ],
  [ 'json', qr/"Custom Plan Provider": "Guest Tokens".*"Calls per Row": 1,/s ],
  [ 'xml', qr{<Calls-per-Row>1</Calls-per-Row>} ],
  [ 'yaml', qr/Calls per Row: 1\n/ ];

# each row gets its own token, in its place
use_script('201,delay=300-then-201,delay=100-then-201');
my @rows = split /\n/, run_ahead("SELECT v.id, t.token FROM (SELECT * FROM visitor ORDER BY id) v, $FUNCTION t WHERE v.id <= 20")->{out};
is(join(' ', map { (split /\|/)[0] } @rows), join(' ', 1 .. 20), 'rows come in order');
is(scalar(grep {
			my ($id, $token) = split /\|/;
			JSON::PP::encode_json($sandbox->decrypt($token)->{claims}) =~ sprintf('"[0-9a-f-]{24}%012d"', $id) } @rows),
	20, 'with the tokens that they asked for');

#
# How far they read ahead
#

sub count_requests
{
	my ($name, $n, @statements) = @_;

	use_script('201');
	my $session = run_ahead(@statements);
	is($session->{err} . $sandbox->attempts, $n, $name);
	return $session;
}

sub is_ahead
{
	my ($statement, $is_ahead, $name) = @_;

	use_script('201,delay=30');
	run_ahead($statement);
	is($sandbox->journal->{max_in_flight} > 1 ? 1 : 0, $is_ahead, $name);
	return;
}

count_requests('LIMIT', 3, "SELECT t.token FROM visitor v, $FUNCTION t LIMIT 3");
count_requests('LIMIT and OFFSET', 7, "SELECT t.token FROM visitor v, $FUNCTION t LIMIT 3 OFFSET 4");
count_requests('LIMIT with a filter', 10,
	"SELECT v.id FROM (SELECT * FROM visitor ORDER BY id) v, $FUNCTION t WHERE v.id % 2 = 0 OR t.token IS NULL LIMIT 5");
count_requests('LIMIT with a parameter', 4,
	"PREPARE p(int) AS SELECT ($FUNCTION).token FROM visitor v LIMIT \$1", 'SET plan_cache_mode = force_generic_plan',
	'EXECUTE p(4)');
count_requests('LIMIT below ORDER BY the token', 6,
	"SELECT * FROM (SELECT t.token FROM visitor v, $FUNCTION t LIMIT 6) s ORDER BY token");
count_requests('ORDER BY the token below LIMIT', 40,
	"SELECT t.token FROM visitor v, $FUNCTION t ORDER BY t.token LIMIT 1");
count_requests('rows as large as work_mem', 40, "SET work_mem = '64kB'",
	"SELECT v.pad, (sw_create_guest_token(v.addresses)).token FROM (SELECT addresses, repeat('x', 70000 + id) AS pad FROM visitor OFFSET 0) v");
is($sandbox->journal->{max_in_flight}, 1, 'rows as large as work_mem: they are read one by one');
my $ANALYZE = 'EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF)';
like(run_ahead("$ANALYZE SELECT ($FUNCTION).token FROM visitor v ORDER BY v.id % 7 LIMIT 3")->{out},
	qr/Guest Tokens.*\(actual rows=3.*Requests: 3\n.*top-N heapsort/s, 'a sort below keeps only what LIMIT reads');
like(run_ahead("$ANALYZE SELECT ($FUNCTION).token FROM visitor v ORDER BY v.id % 7 FETCH FIRST 3 ROWS WITH TIES")->{out},
	qr/Guest Tokens.*\(actual rows=6.*quicksort/s, 'unless there may be ties');
count_requests('LIMIT over partitions', 25, 'SELECT (sw_create_guest_token(addresses)).token FROM part LIMIT 25');
count_requests('no rows', 0, "SELECT t.token FROM visitor v, $FUNCTION t WHERE v.id < 0");
$node->safe_psql('postgres', <<"EOC");
CREATE FUNCTION leave() RETURNS void LANGUAGE plpgsql AS \$\$
DECLARE r record;
BEGIN
	FOR r IN SELECT v.id, t.token FROM (SELECT * FROM visitor ORDER BY id) v, $FUNCTION t LOOP EXIT WHEN r.id = 3; END LOOP;
END \$\$
EOC
count_requests('a loop of PL/pgSQL that leaves, whose rows come by tens', 10, 'SELECT leave()');
is_ahead('SELECT leave()', 1, 'which is read ahead');
$node->safe_psql('postgres', <<"EOC");
CREATE FUNCTION leave_limit() RETURNS void LANGUAGE plpgsql AS \$\$
DECLARE r record;
BEGIN
	FOR r IN SELECT t.token FROM visitor v, $FUNCTION t LIMIT 30 LOOP EXIT; END LOOP;
END \$\$
EOC
count_requests('a loop over LIMIT', 10, 'SELECT leave_limit()');
is_ahead('SELECT leave_limit()', 0, 'which is read one row at a time');
count_requests('SELECT INTO', 1, <<"EOC");
DO \$\$
DECLARE x text;
BEGIN
	SELECT t.token INTO x FROM visitor v, $FUNCTION t;
END \$\$
EOC
count_requests('a sub-select that is a scalar of its own', 1,
	"SELECT (SELECT t.token FROM visitor v, $FUNCTION t LIMIT 1)");
count_requests('a sub-select that is read again', 80,
	"SELECT n, (SELECT count(t.token) FROM visitor v, $FUNCTION t WHERE v.id >= n) FROM (VALUES (1), (1)) s(n)");

count_requests('a semi join', 9, <<"EOC");
SELECT v.id FROM visitor v WHERE EXISTS (SELECT FROM (SELECT s.id, t.token FROM source s, sw_create_guest_token(s.addresses) t
	WHERE s.id < 10 OFFSET 0) s WHERE s.id = v.id AND s.token > 'a')
EOC
count_requests('a join that repeats rows', 3, <<"EOC");
SELECT s.token FROM (SELECT v.id, t.token FROM visitor v, $FUNCTION t WHERE v.id <= 3 OFFSET 0) s, generate_series(1, 4) n ORDER BY n LIMIT 2
EOC
count_requests('FOR UPDATE below LIMIT', 2, "SELECT ($FUNCTION).token FROM visitor v LIMIT 2 FOR UPDATE");
count_requests('REFRESH', 40, 'REFRESH MATERIALIZED VIEW materialized');
is_ahead('REFRESH MATERIALIZED VIEW materialized', 1, 'which reads ahead');

# a loop keeps the rest of its rows when it ends the transaction
$node->safe_psql('postgres', <<"EOC");
CREATE PROCEDURE commit_in_loop() LANGUAGE plpgsql AS \$\$
DECLARE
	r record;
	n int := 0;
BEGIN
	FOR r IN SELECT v.id, t.token FROM visitor v, $FUNCTION t LOOP
		n := n + (r.token IS NOT NULL)::int;
		IF n = 3 THEN COMMIT; END IF;
	END LOOP;
	ASSERT n = 40, format('%s tokens', n);
END \$\$
EOC
count_requests('COMMIT in a loop', 40, 'CALL commit_in_loop()');

# a plan that was made with the setting on obeys it when it is off
use_script('201');
run_ahead("PREPARE p AS SELECT ($FUNCTION).token FROM visitor v", 'SET plan_cache_mode = force_generic_plan', 'EXECUTE p',
	'SET sw_guest_token.read_ahead = off', "SET sw_guest_token.base_url = '" . $sandbox->script('201,id=off') . "'", 'EXECUTE p');
is($sandbox->attempts, 80, 'a cached plan runs on without the setting');
$sandbox->reset;
run_session($node, $ON, "PREPARE p AS SELECT ($FUNCTION).token FROM visitor v WHERE v.id < 9",
	'SET plan_cache_mode = force_generic_plan', 'EXECUTE p', 'EXECUTE p',
	'SET sw_guest_token.read_ahead = off', "SET sw_guest_token.base_url = '" . $sandbox->script('201,delay=5,id=off') . "'",
	'EXECUTE p');
is(scalar(grep { $_->{path} =~ /id=off/ } @{ $sandbox->journal->{requests} }), 8, 'with as many requests');

#
# Errors
#

use_script('201-then-201-then-422-then-201,delay=100');
my $session = run_ahead("SELECT v.id, t.token IS NOT NULL FROM visitor v, $FUNCTION t", $ONE);
is($session->{out}, "token true\n", 'an error ends the statement');
is(sql_state($session->{err}), '22023', 'which is that of the row');
cmp_ok($sandbox->attempts, '<=', 3 + 15 + 1, 'and no further row is read');

use_script('201');
is(run_ahead("SELECT v.id, t.error_code FROM (SELECT * FROM visitor ORDER BY id LIMIT 3) v,"
			. ' sw_try_create_guest_token(CASE WHEN v.id <> 2 THEN v.addresses END) t')->{out},
	"1|\n2|22004\n3|\n", 'a call that tries gives its error as its row');
is($sandbox->attempts, 2, 'and makes no request for it');

use_script('201-then-401');
is(run_ahead('SET sw_guest_token.max_concurrency = 4',
		'SELECT t.error_code, count(*) FROM visitor v, sw_try_create_guest_token(v.addresses) t GROUP BY 1 ORDER BY 1')->{out},
	"28000|39\n|1\n", 'after a 401 all other rows fail');
cmp_ok($sandbox->attempts, '<=', 6, 'without a request');

undef $url;
$sandbox->reset;
is(run_ahead("SET sw_guest_token.base_url = 'http://127.0.0.1:1'",
		"SELECT t.token FROM visitor v, $FUNCTION t WHERE v.id < 0")->{err}, '', 'without rows nothing is judged');
$node->safe_psql('postgres', 'CREATE ROLE guest; GRANT SELECT ON visitor TO guest; CREATE ROLE other; GRANT SELECT ON visitor TO other');
$node->safe_psql('postgres', 'GRANT EXECUTE ON FUNCTION sw_create_guest_token TO guest');
my $explain = "EXPLAIN (COSTS OFF) SELECT t.token FROM visitor v, $FUNCTION t";
like(run_ahead('SET ROLE guest', $explain)->{out}, qr/Guest Tokens/, 'who has EXECUTE reads ahead');
is(sql_state(run_ahead('SET ROLE other', $explain)->{err}), '42501', 'who has not cannot even EXPLAIN');
is(sql_state(run_ahead('SET ROLE other', "EXPLAIN SELECT ($FUNCTION).token FROM visitor v")->{err}), '42501', 'a target list neither');
is(run_ahead("PREPARE p AS SELECT count(t.token) FROM visitor v, $FUNCTION t WHERE v.id < 0", 'SET plan_cache_mode = force_generic_plan',
		'EXECUTE p', 'SET ROLE other', 'EXECUTE p')->{err} =~ /42501: +permission denied for function sw_create_guest_token/, 1,
	'nor a plan that another role has made');

$node->safe_psql('postgres', 'ALTER TABLE visitor ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON visitor USING (id <= 5)');
use_script('201');
is(run_session($node, $ON, 'SET ROLE guest', "SELECT count(t.token) FROM visitor v, $FUNCTION t")->{out}, "5\n",
	'policies count');
$node->safe_psql('postgres', 'ALTER TABLE visitor DISABLE ROW LEVEL SECURITY');

#
# Other statements in between
#

# an error in a subtransaction ends only that subtransaction's requests
use_script('201,delay=20');
$session = run_ahead(<<"EOC", $ONE);
DO \$\$
DECLARE
	r record;
	n int := 0;
BEGIN
	FOR r IN SELECT v.id, t.token FROM visitor v, $FUNCTION t LOOP
		n := n + (r.token IS NOT NULL)::int;
		BEGIN
			PERFORM t.token, 1 / (v.id - 1 - r.id % 2) FROM visitor v, $FUNCTION t WHERE v.id <= 3;
		EXCEPTION WHEN division_by_zero THEN
			NULL;
		END;
	END LOOP;
	ASSERT n = 40, format('%s tokens', n);
END \$\$
EOC
is($session->{err} . $session->{out}, "token true\n", 'a failure in a subtransaction leaves others alone');

# and a failing call of an inner query ends only that query's requests
use_script('201,delay=20');
$session = run_ahead(<<"EOC", $ONE);
DO \$\$
DECLARE
	r record;
	n int := 0;
	failures int := 0;
BEGIN
	FOR r IN SELECT v.id, t.token FROM visitor v, $FUNCTION t LOOP
		n := n + (r.token IS NOT NULL)::int;
		BEGIN
			PERFORM t.token FROM visitor v, sw_create_guest_token(CASE WHEN v.id % 8 <> r.id % 2 THEN v.addresses END) t WHERE v.id <= 8;
		EXCEPTION WHEN null_value_not_allowed THEN
			failures := failures + 1;
		END;
	END LOOP;
	ASSERT n = 40 AND failures = 40, format('%s tokens, %s failures', n, failures);
END \$\$
EOC
is($session->{err} . $session->{out}, "token true\n", 'a failure of a query within leaves others alone');

# one of two nodes of a plan fails
use_script('201');
is(sql_state(run_ahead("SELECT t.token, u.token FROM visitor v, $FUNCTION t,"
			. ' sw_create_guest_token(CASE WHEN v.id < 30 THEN v.addresses END) u', $ONE)->{err}), '22004', 'a failure of one of two nodes is raised');

# a trigger's call in the middle
$node->safe_psql('postgres', <<'EOC');
CREATE TABLE triggered (id int, addresses uuid[], given text, token text, refresh_token text);
CREATE TRIGGER issue BEFORE INSERT ON triggered FOR EACH ROW EXECUTE FUNCTION sw_guest_token_trigger('addresses', 'token', 'refresh_token');
EOC
$session = count_requests("a trigger's calls in between", 80,
	"INSERT INTO triggered (id, addresses, given) SELECT v.id, v.addresses, t.token FROM visitor v, $FUNCTION t",
	'SELECT count(DISTINCT given), count(DISTINCT token) FROM triggered WHERE given <> token');
is($session->{out}, "40|40\n", 'each gets its own');

# a statement trigger
$node->safe_psql('postgres', <<'EOC');
CREATE FUNCTION issue_all() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO token (visitor, token)
		SELECT i.id, t.token FROM inserted i, sw_try_create_guest_token(i.addresses) t;
	RETURN NULL;
END $$;
CREATE TABLE arriving (id int, addresses uuid[]);
CREATE TRIGGER issue_all AFTER INSERT ON arriving REFERENCING NEW TABLE AS inserted
	FOR EACH STATEMENT EXECUTE FUNCTION issue_all();
EOC
use_script('hold,n=16');
run_ahead('INSERT INTO arriving SELECT id, addresses FROM visitor');
is($sandbox->attempts . ' ' . $sandbox->journal->{max_in_flight}, '40 16', 'a statement trigger reads its rows ahead');

# after a cancel, the session can go on
use_script('201-then-201-then-hang');
$session = session($node, $ON, "SET sw_guest_token.base_url = '$url'", "SELECT t.token FROM visitor v, $FUNCTION t",
	"SET sw_guest_token.base_url = '$sandbox->{url}'", $ONE);
$sandbox->journal(16);
$node->safe_psql('postgres', "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'");
$session->finish;
is(sql_state($session->{err}) . " $session->{out}", "57014 token true\n", 'a cancel ends it at once');

# a session waits for a row that another has locked; in some forms of the statement,
# the row's new version causes one more call
my $psql = sub {
	return start_process([ $node->installed_command('psql'), '-XAtq', '-d', $node->connstr('postgres') ]);
};
foreach my $form (
	[ 'UPDATE FROM', "UPDATE visitor SET token = t.token FROM source v, $FUNCTION t WHERE v.id = visitor.id", 40 ],
	[ 'FOR UPDATE', "SELECT v.id, t.token FROM visitor v, $FUNCTION t FOR UPDATE OF v", 40 ],
	[ 'FOR UPDATE with a list', "SELECT v.id, ($FUNCTION).token FROM visitor v FOR UPDATE", 41 ],
	[ 'MERGE', "MERGE INTO visitor USING (SELECT v.id, t.token FROM source v, $FUNCTION t) s ON s.id = visitor.id"
		. ' WHEN MATCHED THEN UPDATE SET token = s.token', 40 ],
	[ 'a sub-select', 'UPDATE visitor v SET (token, refresh_token) = (SELECT token, refresh_token FROM sw_create_guest_token(v.addresses))', 41 ])
{
	my ($name, $statement, $n) = @$form;

	use_script('201,delay=5');
	my $holder = &$psql();
	$holder->{in} = "BEGIN; UPDATE visitor SET refresh_token = 'held' WHERE id = 20; SELECT 'held';\n";
	$holder->wait_for(qr/held\n/);
	my $waiter = session($node, $ON, "SET sw_guest_token.base_url = '$url'", $statement);
	$node->poll_query_until('postgres', 'SELECT count(*) > 0 FROM pg_locks WHERE NOT granted')
	  or die 'nobody waits for the lock';
	$holder->{in} = "COMMIT;\n\\q\n";
	$holder->finish;
	is($waiter->finish->{err}, '', "$name: another version of a row is taken");
	is($sandbox->attempts, $n, "$name: with $n requests");
	cmp_ok($sandbox->journal->{max_in_flight}, '>', 1, "$name: which are read ahead");
}
is($node->safe_psql('postgres', "SELECT count(DISTINCT token) FROM visitor"), '40', 'all have their tokens');

# a function that was made strict is not called with NULL
$node->safe_psql('postgres', 'ALTER FUNCTION sw_try_create_guest_token STRICT');
unlike(plan_of('SELECT t.* FROM visitor v, sw_try_create_guest_token(v.addresses, v.id, v.token, v.token, make_interval(secs => v.id)) t'),
	qr/Guest Tokens/, 'what is strict stays row by row');
$node->safe_psql('postgres', 'ALTER FUNCTION sw_try_create_guest_token CALLED ON NULL INPUT');

# a table that was altered
use_script('201');
is(run_ahead("PREPARE p AS SELECT v.id, t.token IS NOT NULL, to_jsonb(v) ? 'extra' FROM visitor v, $FUNCTION t WHERE v.id < 3 ORDER BY 1",
		'SET plan_cache_mode = force_generic_plan', 'EXECUTE p', 'ALTER TABLE visitor ADD extra int DEFAULT 1', 'EXECUTE p',
		'ALTER TABLE visitor DROP extra', 'EXECUTE p')->{out},
	"1|t|f\n2|t|f\n1|t|t\n2|t|t\n1|t|f\n2|t|f\n", 'a cached plan sees a changed table');

# functions that were dropped and made again
use_script('201');
$session = run_ahead("PREPARE p AS SELECT count(t.token) FROM visitor v, $FUNCTION t", 'EXECUTE p',
	'DROP EXTENSION sw_guest_token CASCADE', 'EXECUTE p', 'CREATE EXTENSION sw_guest_token', 'EXECUTE p');
is(sql_state($session->{err}) . " $session->{out}", "42883 40\n40\n", 'a plan outlives neither function nor its absence');

# a query that sleeps between rows does not use up the time of requests in flight
use_script('201,delay=10');
is(run_ahead("SET sw_guest_token.timeout = '500ms'", 'SET sw_guest_token.max_concurrency = 3',
		"SELECT count(token), count(pg_sleep) FROM (SELECT t.token, v.id FROM visitor v, $FUNCTION t WHERE v.id <= 8 OFFSET 0) s,"
		  . ' pg_sleep(0.3 * (s.id % 3)) LIMIT 1')->{out}, "8|8\n", 'a consumer that sleeps does no harm');

# nor does its session count as waiting
use_script('201');
$node->append_conf('postgresql.conf', 'sw_guest_token.max_sessions = 1');
$node->reload;
$node->poll_query_until('postgres', "SELECT current_setting('sw_guest_token.max_sessions') = '1'");
my $sleeper = session($node, $ON, "SET sw_guest_token.base_url = '" . $sandbox->script('201-then-201,delay=1500-then-201') . "'",
	"SELECT count(*) FROM (SELECT CASE WHEN v.id = 3 THEN pg_advisory_lock(1) END, t.token FROM (SELECT * FROM visitor ORDER BY id) v, $FUNCTION t OFFSET 0) s");
my $locker = &$psql();
$locker->{in} = "SELECT pg_advisory_lock(1); SELECT 'locked';\n";
$locker->wait_for(qr/locked\n/);
$node->poll_query_until('postgres', "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted") or die 'nobody sleeps';
is($node->safe_psql('postgres', 'SELECT sum(sessions) FROM sw_guest_token_stat'), '0', 'nor does its session count as one that waits');
$locker->{in} = "SELECT pg_advisory_unlock(1);\n\\q\n";
$locker->finish;
is($sleeper->finish->{err} . $sleeper->{out}, "40\n", 'which goes on when it is asked for rows');
$node->append_conf('postgresql.conf', 'sw_guest_token.max_sessions = 0');
$node->reload;

# after a refusal, changed settings are tried
use_script('201-then-401-then-201');
is(run_ahead('SET sw_guest_token.max_concurrency = 2',
		"SELECT count(token) > 30 FROM (SELECT t.token, CASE WHEN v.id = 5 THEN set_config('sw_guest_token.timeout', '90s', false) END"
		  . " FROM (SELECT * FROM visitor ORDER BY id) v, sw_try_create_guest_token(v.addresses) t OFFSET 0) s")->{out},
	"t\n", 'after a change of settings a refusal is forgotten');

# what the query itself runs may change the settings before the first row is there
my $lower = q{set_config('sw_guest_token.max_concurrency', '1', false)};
my $none = "(sw_try_create_guest_token('{}', id)).error_code";
my $changed = run_ahead("CREATE DOMAIN pg_temp.lowered AS int CHECK ($lower IS NOT NULL)",
	"SELECT id::pg_temp.lowered, $none FROM visitor");
is($changed->{err}, '', 'a query that lowers max_concurrency works');
is(scalar(() = $changed->{out} =~ /^\d+\|22023$/mg), 40, 'and each row gets its result');

# each call follows the settings as its arguments leave them
my @urls = map { $sandbox->script($_) } '201,id=right', '422,id=wrong';
$changed = run_ahead('CREATE FUNCTION pg_temp.turn(n int) RETURNS text STABLE LANGUAGE SQL'
	  . " RETURN nullif(set_config('sw_guest_token.base_url', CASE n % 2 WHEN 1 THEN '$urls[0]' ELSE '$urls[1]' END, false) LIKE 'http%', true)::text",
	"SELECT id % 2, t.error_code FROM (SELECT * FROM visitor ORDER BY id LIMIT 20) v, sw_try_create_guest_token(addresses, region => pg_temp.turn(id)) t");
is($changed->{err} . $changed->{out}, "1|\n0|22023\n" x 10, 'arguments that change the settings do so for their own call');

# a function's label does not prove that it has the same result twice
$changed = run_ahead('CREATE SEQUENCE pg_temp.times', 'CREATE FUNCTION pg_temp.falls(n int) RETURNS bigint IMMUTABLE LANGUAGE plpgsql'
	  . q{ AS $$ BEGIN RETURN CASE nextval('times') WHEN 1 THEN n ELSE 0 END; END $$},
	'SET plan_cache_mode = force_generic_plan', "PREPARE p(int) AS SELECT $none FROM visitor ORDER BY token LIMIT pg_temp.falls(\$1)",
	'EXECUTE p(30)');
is($changed->{err}, '', 'a LIMIT that is lower the second time works');
is($changed->{out}, "22023\n" x 30, 'and counts as it was the first time');

# planning remains cheap where sub-plans are used several times
my $ctes = join ', ', 'c0 AS MATERIALIZED (SELECT 1 x)', map { my $c = $_ - 1; "c$_ AS MATERIALIZED (SELECT a.x FROM c$c a, c$c b)" } 1 .. 40;
like(run_ahead("SET statement_timeout = '60s'", "EXPLAIN WITH $ctes SELECT (sw_create_guest_token('{$ADDRESS}', x)).token FROM c40")->{out},
	qr/Guest Tokens/, 'planning is not exponential');

# memory, with an API that is faster than the sandbox
my ($nginx) = grep { -x } qw(/usr/sbin/nginx /usr/bin/nginx /usr/local/sbin/nginx);
SKIP:
{
	skip 'nginx is not installed', 1 unless $nginx;
	my $directory = PostgreSQL::Test::Utils::tempdir;
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	append_to_file("$directory/nginx.conf", <<"EOC");
daemon off;
pid $directory/nginx.pid;
error_log $directory/error.log;
events { worker_connections 1000; }
http {
	access_log off;
	client_body_temp_path $directory/body;
	proxy_temp_path $directory/proxy;
	fastcgi_temp_path $directory/fastcgi;
	uwsgi_temp_path $directory/uwsgi;
	scgi_temp_path $directory/scgi;
	default_type application/json;
	keepalive_requests 1000000;
	server { listen 127.0.0.1:$port; location / { return 201 '{"token":"a","refresh_token":"b"}'; } }
}
EOC
	my $api = start_process([ $nginx, '-e', "$directory/error.log", '-p', $directory, '-c', "$directory/nginx.conf" ]);
	until (-s "$directory/nginx.pid")
	{
		$api->{process}->pump_nb;
		$api->{process}->pumpable or die slurp_file("$directory/error.log");
		select undef, undef, undef, 0.1;
	}
	undef $url;
	$session = run_ahead("SET sw_guest_token.base_url = 'http://127.0.0.1:$port'", 'CREATE TEMP TABLE memory (n int, kb bigint)',
		'SET sw_guest_token.max_concurrency = 64', <<'EOC', 'SELECT max(kb) - min(kb) < 512 FROM memory');
DO $$
DECLARE r record; n int := 0;
BEGIN
	FOR r IN SELECT t.token FROM generate_series(1, 20000) i, sw_create_guest_token('{11111111-1111-1111-1111-111111111111}', 2000000000 + i) t LOOP
		n := n + 1;
		IF n IN (2000, 20000) THEN
			INSERT INTO memory SELECT n, sum(total_bytes) / 1024 FROM pg_backend_memory_contexts;
		END IF;
	END LOOP;
END $$
EOC
	is($session->{err} . $session->{out}, "t\n", 'memory does not grow with the rows');
	$api->{process}->signal('TERM');
	$api->finish;
}

# what EXPLAIN ANALYZE counts
use_script('503-then-201');
like(run_ahead('SET sw_guest_token.max_retries = 1',
		"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT t.token FROM visitor v, $FUNCTION t")->{out},
	qr/Calls per Row: 1\n  Requests: 40\n  Requests in Flight: 16\n  Requests Abandoned: 0\n  Retries: 1\n/,
	'EXPLAIN ANALYZE counts');

# without preloading, the first query loads the library in the middle of planning
my $late = start_server('late', "shared_preload_libraries = ''\n");
use_sandbox($late, $sandbox);
my $twice = "EXPLAIN (COSTS OFF) SELECT sw_create_guest_token(ARRAY[n]) FROM unnest('{$ADDRESS}'::uuid[]) n";
is(run_session($late, $ON, $twice, $twice)->{out}, <<'EOP', 'then the second query is the first to read ahead');
Function Scan on unnest n
Custom Scan (Guest Tokens)
  Calls per Row: 1
  ->  Function Scan on unnest n
EOP

done_testing();
