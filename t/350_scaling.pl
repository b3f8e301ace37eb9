# What docs/scaling.md says about several servers is true, as far as PostgreSQL alone
# can show it, and its SQL runs as printed.  What needs Citus is left out; ordinary
# tables stand in for its shards.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SwTest;
use Test::More;

# The one address that the API does not accept
my $FOREIGN = 'ffffffff-ffff-4fff-8fff-ffffffffffff';

my $sandbox = start_sandbox('--foreign-address', $FOREIGN);
my $one = start_server('one', '', allows_streaming => 'logical');
my $two = start_server('two');
use_sandbox($_, $sandbox) foreach $one, $two;

my @blocks = blocks_of('scaling', '# Scaling');
my @citus = grep { /\b(?:run_command_on_\w+|create_distributed_table|pg_dist_shard)\b/ } @blocks;
my ($update, $limit, $bulk, $queue, $runs, @rest) = grep { my $block = $_; !grep { $_ eq $block } @citus } @blocks;

is(scalar(@citus) . ' and ' . scalar(@rest), '5 and 0', 'five blocks need Citus, five do not');
$one->safe_psql('postgres', $_) foreach blocks_of('recipes', '# Recipes'), (blocks_of('recipes', '## 4.'))[0];
$one->safe_psql('postgres', <<'EOQ');
CREATE TABLE visitor (id int PRIMARY KEY, addresses uuid[], token text, refresh_token text);
INSERT INTO visitor (id, addresses) SELECT i, ARRAY[gen_random_uuid()] FROM generate_series(1, 40) i;
EOQ

test_statements();
test_bulk();
test_queue();
test_budgets();
SKIP:
{
	skip 'PostgreSQL has no postgres_fdw here', 1
	  unless $one->safe_psql('postgres', "SELECT count(*) FROM pg_available_extensions WHERE name = 'postgres_fdw'");
	test_foreign_tables();
}
test_logical_replication();
done_testing();

#
# Citus, without Citus
#

sub test_statements
{
	use_scripts('201');
	run_block($limit);
	is(asked(), 'one 1', 'a LIMIT below the call issues one token');
	use_scripts('201');
	run_block($update);
	is(asked(), 'one 40', 'a CTE issues a token for each row');
	is($one->safe_psql('postgres', 'SELECT count(DISTINCT token) FROM visitor'), '40', 'which an UPDATE stores');
	return;
}

sub test_bulk
{
	my @shards = ('token_request_1', 'token_request_2', '"token request 3"');
	my $all = join ' UNION ALL ', map { "SELECT * FROM $_" } @shards;
	my $names = join ', ', map { "('$_'::regclass)" } @shards;
	my $state = "SELECT count(token), count(*) FILTER (WHERE next_try <= now()), max(attempts) FROM ($all) s";

	$one->safe_psql('postgres', <<"EOQ");
@{[ map { "CREATE TABLE $_ (LIKE token_request INCLUDING ALL); GRANT SELECT, UPDATE ON $_ TO token_issuer;" } @shards ]}
CREATE FUNCTION token_request_shards() RETURNS SETOF regclass LANGUAGE sql AS \$\$ VALUES $names \$\$;
EOQ
	run_block($bulk);
	my $request = sub {
		my ($shard, $n) = @_;
		my $first = $one->safe_psql('postgres', "SELECT coalesce(max(customer_id), 0) FROM ($all) s");

		$one->safe_psql('postgres', "INSERT INTO $shards[$shard] (customer_id, addresses)
			SELECT $first + i, ARRAY[gen_random_uuid()] FROM generate_series(1, $n) i");
	};
	my $work = sub {
		return session($one, @_, 'SET SESSION AUTHORIZATION token_worker', 'CALL issue_shard_tokens(10)');
	};

	# nobody is answered before all ten of the first batch are on their way
	use_scripts('hold,n=10');
	$request->(0, 25);
	$request->(1, 3);
	$request->(2, 11);
	$one->safe_psql('postgres', "INSERT INTO $shards[2] (customer_id, addresses) VALUES (1000, '{$FOREIGN}')");
	is($work->()->finish->{err}, '', 'the procedure walks through all shards');
	is($one->safe_psql('postgres', $state) . ' ' . asked(), '39|0|1 one 40', 'and issues each request once');
	is($one->safe_psql('postgres', "SELECT error_code, next_try IS NULL FROM ($all) s WHERE token IS NULL"), '22023|t',
		'but one that is wrong');
	is($sandbox->journal->{max_in_flight}, 10, 'a batch of it at a time');
	is(scalar(grep { my ($address, $token) = split /\|/; $sandbox->decrypt($token)->{claims}{addresses}[0] eq $address }
			split /\n/, $one->safe_psql('postgres', "SELECT addresses[1], token FROM ($all) s WHERE token IS NOT NULL")),
		39, 'with tokens for their own addresses');
	is($work->()->finish->{err} . asked(), 'one 40', 'when nothing is open it asks for nothing');

	# two sessions
	use_scripts('hold,n=20');
	$request->(0, 20);
	my @workers = map { $work->() } 1 .. 2;
	is(join('', map { $_->finish->{err} } @workers) . asked(), 'one 20', 'two sessions share a shard, and issue no row twice');

	# a session that ends in its second batch
	use_scripts(join '-then-', ('201') x 10, 'hang');
	$request->(0, 15);
	$request->(1, 4);
	my $worker = $work->();
	$sandbox->journal(15);
	$one->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'");
	is(sql_state($worker->finish->{err}), '57P01', 'a session is terminated in its second batch');
	is($one->safe_psql('postgres', $state), '69|9|1', 'the first is kept, the rest is due as before');

	# temporary failures
	$work->('SET sw_guest_token.max_retries = 0', "SET sw_guest_token.base_url = '" . $sandbox->script('500') . "'")->finish;
	is($one->safe_psql('postgres', "SELECT error_code, count(*), bool_and(next_try > now()) FROM ($all) s
			WHERE token IS NULL AND next_try IS NOT NULL GROUP BY 1"),
		'58000|9|t', 'what fails is recorded, and tried again later');
	use_scripts('201');
	$one->safe_psql('postgres', "UPDATE $_ SET next_try = now() WHERE next_try > now()") foreach @shards;
	is($work->()->finish->{err} . $one->safe_psql('postgres', $state), '78|0|2', 'until it is issued');

	is(sql_state(run_session($one, 'SET SESSION AUTHORIZATION web', 'CALL issue_shard_tokens()',
				"SELECT issue_shard_batch('token_request_1', 1)")->{err}), '42501 42501', 'only the worker may call it');
	is(sql_state(run_session($one, 'SET SESSION AUTHORIZATION token_worker', "SELECT token FROM $shards[0]", $ONE)->{err}),
		'42501 42501', 'which can neither read tokens nor call the extension');
	return;
}

sub test_queue
{
	use_scripts('401');
	$one->safe_psql('postgres', "WITH c AS (INSERT INTO customer (name) SELECT i FROM generate_series(1, 5) i RETURNING id)
		INSERT INTO token_request (customer_id, addresses) SELECT id, ARRAY[gen_random_uuid()] FROM c");
	run_session($one, 'SET SESSION AUTHORIZATION token_worker', 'CALL issue_tokens()');
	$one->safe_psql('postgres', "UPDATE token_request SET next_try = now() WHERE customer_id <= 2;
		UPDATE token_request SET next_try = NULL WHERE customer_id = 3;
		UPDATE token_request SET next_try = 'infinity' WHERE customer_id = 4;
		UPDATE token_request SET next_try = NULL, error_code = NULL, error = NULL, token = 't' WHERE customer_id = 5");
	my ($state, $errors) = split /\n\n/, run_block($queue);
	like($state, qr/^ +2 \| \d\d:.* \| +1 \| +1 \| +1$/m, 'the state of the queue is shown');
	like($errors, qr/^ 28000 +\| +4 \| +1 \| \S/m, 'and its errors');

  SKIP:
	{
		skip 'PostgreSQL has no pg_cron here (Debian: postgresql-N-cron)', 1
		  unless $one->safe_psql('postgres', "SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_cron'");
		$one->append_conf('postgresql.conf', "shared_preload_libraries = 'sw_guest_token,pg_cron'\ncron.database_name = 'postgres'");
		$one->restart;
		$one->safe_psql('postgres', 'CREATE EXTENSION pg_cron');
		run_block($runs);
	}
	return;
}

#
# What each server has for itself
#

sub test_budgets
{
	my $standby = PostgreSQL::Test::Cluster->new('standby');
	my $call = sub {
		my ($node, $n) = @_;

		local $ENV{PGUSER} = 'app';
		return run_session($node, ($ONE) x $n);
	};

	use_scripts('201');
	$one->safe_psql('postgres', 'CREATE ROLE app LOGIN; ALTER ROLE app SET sw_guest_token.tokens_per_minute = 3;
		GRANT EXECUTE ON FUNCTION sw_create_guest_token TO app');
	$one->backup('backup');
	$standby->init_from_backup($one, 'backup', has_streaming => 1);
	$standby->start;

	foreach my $node ($one, $standby)
	{
		my $session = $call->($node, 4);
		is($session->{out} . sql_state($session->{err}), "token true\n" x 3 . '53400',
			'the budget of a role holds on the ' . $node->name . ', for that server alone');
	}
	like(run_session($standby, 'SET sw_guest_token.read_ahead = on',
			'EXPLAIN SELECT v.id, t.* FROM visitor v, sw_create_guest_token(v.addresses) t')->{out},
		qr/Guest Tokens/, 'queries read ahead on a standby');
	$standby->stop;
	return;
}

#
# postgres_fdw
#

sub test_foreign_tables
{
	my $host = $two->host;
	my $port = $two->port;
	my $read_ahead = "LOAD 'sw_guest_token'; SET sw_guest_token.read_ahead = on";
	my $remote = sub {
		my ($name, $statement, $asked, %and) = @_;

		use_scripts($and{script} // '201');
		my $session = run_session($one, ($and{set} // ()), $statement);
		is($session->{err} . asked(), $asked, $name);
		is($sandbox->journal->{max_in_flight}, $and{in_flight}, "$name: $and{in_flight} in flight") if $and{in_flight};
	};
	my $reads_ahead = sub {
		my ($statement) = @_;

		return run_session($one, $read_ahead, 'CREATE TEMP TABLE copy AS SELECT * FROM visitor',
			"EXPLAIN (COSTS OFF) $statement")->{out} =~ /Guest Tokens/ ? 1 : 0;
	};

	$two->safe_psql('postgres', <<'EOQ');
ALTER SYSTEM SET sw_guest_token.read_ahead = on;
SELECT pg_reload_conf();
CREATE TABLE visitor (id int PRIMARY KEY, addresses uuid[], token text, refresh_token text);
INSERT INTO visitor (id, addresses) SELECT i, ARRAY[gen_random_uuid()] FROM generate_series(1, 40) i;
CREATE VIEW issuing AS SELECT v.id, t.token FROM visitor v, sw_create_guest_token(v.addresses) t;
CREATE FUNCTION issue() RETURNS TABLE (id int, token text) LANGUAGE plpgsql
	SET search_path = pg_catalog, pg_temp SET sw_guest_token.read_ahead = on
AS $$
BEGIN
	RETURN QUERY SELECT v.id, t.token FROM public.visitor v, public.sw_create_guest_token(v.addresses) t;
END
$$;
CREATE VIEW issuing_ahead AS SELECT * FROM issue();
CREATE TABLE guest (id int, addresses uuid[], token text, refresh_token text);
CREATE TRIGGER t BEFORE INSERT ON guest FOR EACH ROW
	EXECUTE FUNCTION sw_guest_token_trigger('addresses', 'token', 'refresh_token');
EOQ
	# Two foreign servers are two connections, here to the same server.
	$one->safe_psql('postgres', 'CREATE EXTENSION postgres_fdw; '
		  . join ' ', map { "CREATE SERVER $_ FOREIGN DATA WRAPPER postgres_fdw
				OPTIONS (host '$host', port '$port', dbname 'postgres', async_capable 'true');
			CREATE USER MAPPING FOR CURRENT_USER SERVER $_;" } qw(b c));
	$one->safe_psql('postgres', <<'EOQ');
CREATE FOREIGN TABLE remote (id int, addresses uuid[], token text, refresh_token text) SERVER b OPTIONS (table_name 'visitor');
CREATE FOREIGN TABLE remote_guest (id int, addresses uuid[], token text, refresh_token text)
	SERVER b OPTIONS (table_name 'guest', batch_size '50');
CREATE FOREIGN TABLE issuing (id int, token text) SERVER b;
CREATE FOREIGN TABLE issuing_ahead (id int, token text) SERVER b;
CREATE TABLE both_ahead (id int, token text);
CREATE FOREIGN TABLE ahead1 () INHERITS (both_ahead) SERVER b OPTIONS (table_name 'issuing_ahead');
CREATE FOREIGN TABLE ahead2 () INHERITS (both_ahead) SERVER c OPTIONS (table_name 'issuing_ahead');
CREATE TABLE both_rows (id int, token text);
CREATE FOREIGN TABLE rows1 () INHERITS (both_rows) SERVER b OPTIONS (table_name 'issuing');
CREATE FOREIGN TABLE rows2 () INHERITS (both_rows) SERVER c OPTIONS (table_name 'issuing');
EOQ

	# views that issue
	$remote->('count(*) over a view that issues', 'SELECT count(*) FROM issuing', 'two 40', in_flight => 1);
	$remote->('ANALYZE', 'ANALYZE issuing', 'two 40');
	$remote->('EXPLAIN', 'EXPLAIN SELECT * FROM issuing', '');
	$remote->('a LIMIT that is sent', 'SELECT id FROM issuing LIMIT 1', 'two 1');
	$remote->('a condition that is sent', 'SELECT id FROM issuing WHERE id <= 2', 'two 2');
	$remote->('a LIMIT that is not sent', 'SELECT id FROM issuing WHERE random() >= 0 LIMIT 1', 'two 40');
	$remote->('a view over a function', 'SELECT count(*) FROM issuing_ahead', 'two 40', script => 'hold,n=16', in_flight => 16);
	$remote->('whatever LIMIT says', 'SELECT id FROM issuing_ahead LIMIT 1', 'two 40');
	$remote->('two servers at the same time', 'SELECT count(*) FROM both_rows', 'two 80', script => 'hold,n=2', in_flight => 2);
	$remote->('with functions', 'SELECT count(*) FROM both_ahead', 'two 80', script => 'hold,n=32', in_flight => 32);
	use_scripts('422');
	is(sql_state(run_session($one, 'SELECT * FROM issuing')->{err}), '22023', 'a failure comes with its SQLSTATE');

	# calls in the local query
	$remote->('a call over a foreign table', 'SELECT f.id, t.* FROM remote f, sw_create_guest_token(f.addresses) t', 'one 40',
		set => $read_ahead, in_flight => 1);
	$remote->('UPDATE of a foreign table', 'UPDATE remote SET token = (sw_create_guest_token(addresses)).token WHERE id <= 5',
		'one 5', set => $read_ahead, in_flight => 1);
	$remote->('a remote trigger', 'INSERT INTO remote_guest (id, addresses) SELECT id, addresses FROM visitor', 'two 40', in_flight => 1);
	$remote->('INSERT into a foreign table',
		'INSERT INTO remote (id, token) SELECT v.id + 100, t.token FROM visitor v, sw_create_guest_token(v.addresses) t', 'one 40',
		set => $read_ahead, script => 'hold,n=16', in_flight => 16);
	my $over = 'f.id, t.token FROM %s f, sw_create_guest_token(f.addresses) t';
	is($reads_ahead->('SELECT ' . sprintf $over, 'remote'), 0, 'nothing is read ahead from a foreign table');
	is($reads_ahead->('INSERT INTO copy (id, token) SELECT ' . sprintf $over, 'remote'), 0, 'nor does INSERT');
	is($reads_ahead->('WITH f AS MATERIALIZED (SELECT * FROM remote) SELECT ' . sprintf $over, 'f'), 0, 'nor is it from a CTE');
	is($reads_ahead->('SELECT ' . sprintf $over, 'copy'), 1, 'from a copy it is');
	like(run_session($one, 'EXPLAIN (VERBOSE) SELECT id FROM remote ORDER BY id LIMIT 2 FOR UPDATE SKIP LOCKED')->{out},
		qr/Remote SQL: .* FOR UPDATE$/m, 'SKIP LOCKED is not sent');
	return;
}

#
# Logical replication
#

sub test_logical_replication
{
	my $wait = sub {
		my ($n, $id) = @_;

		$two->poll_query_until('postgres', 'SELECT count(*) = ' . ($n // 1) . ' FROM replicated' . ($id ? " WHERE id = $id" : ''))
		  or die 'nothing comes';
	};
	my $insert = sub {
		my ($first, $last) = @_;

		$one->safe_psql('postgres', "INSERT INTO replicated (id, addresses) SELECT i, ARRAY[gen_random_uuid()] FROM generate_series($first, $last) i");
	};
	my $token = sub { return $_[0]->safe_psql('postgres', "SELECT token FROM replicated WHERE id = $_[1]") };
	my $connection = $one->connstr('postgres') =~ s/'/''/gr;

	use_scripts('201');
	$_->safe_psql('postgres', <<'EOQ') foreach $one, $two;
CREATE TABLE replicated (id int PRIMARY KEY, addresses uuid[], token text, refresh_token text);
CREATE TRIGGER t BEFORE INSERT OR UPDATE ON replicated FOR EACH ROW
	EXECUTE FUNCTION sw_guest_token_trigger('addresses', 'token', 'refresh_token');
CREATE TABLE other (id int PRIMARY KEY, addresses uuid[]);
CREATE TABLE other_token (id int, token text);
CREATE FUNCTION issue_other() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	INSERT INTO public.other_token SELECT i.id, t.token FROM inserted i, public.sw_create_guest_token(i.addresses) t;
	RETURN NULL;
END
$$;
CREATE TRIGGER t AFTER INSERT ON other REFERENCING NEW TABLE AS inserted
	FOR EACH STATEMENT EXECUTE FUNCTION issue_other();
EOQ
	$insert->(1, 5);
	$one->safe_psql('postgres', 'CREATE PUBLICATION p FOR TABLE replicated, other');
	my $subscribe = "CREATE SUBSCRIPTION s CONNECTION '$connection' PUBLICATION p";
	$two->safe_psql('postgres', $subscribe);
	$two->wait_for_subscription_sync($one, 's');
	$insert->(6, 6);
	$wait->(6);
	is(asked(), 'one 6', 'an ordinary trigger issues once, where the row is inserted');
	is($token->($two, 6), $token->($one, 6), 'and the token is replicated');

	foreach my $mode (qw(ALWAYS REPLICA))
	{
		my $id = $mode eq 'ALWAYS' ? 7 : 8;

		use_scripts('201');
		$two->safe_psql('postgres', "ALTER TABLE replicated ENABLE $mode TRIGGER t");
		$insert->($id, $id);
		$wait->(1, $id);
		is(asked(), 'one 1 two 1', "ENABLE $mode issues again at the subscriber");
		isnt($token->($two, $id), $token->($one, $id), 'which then has another token');

		use_scripts('201');
		$one->safe_psql('postgres', "UPDATE replicated SET addresses = '{$ADDRESS}' WHERE id = $id");
		$two->poll_query_until('postgres', "SELECT addresses = '{$ADDRESS}' FROM replicated WHERE id = $id");
		is(asked(), 'one 1 two 1', 'and so it is when addresses change');
	}
	use_scripts('201');
	$insert->(20, 39);
	$wait->(28);
	is(asked() . ' ' . $sandbox->journal->{max_in_flight}, 'one 20 two 20 1', 'one row at a time');

	# statement triggers
	$two->safe_psql('postgres', 'ALTER TABLE other ENABLE ALWAYS TRIGGER t');
	use_scripts('201');
	$one->safe_psql('postgres', "INSERT INTO other VALUES (1, '{$ADDRESS}')");
	$two->poll_query_until('postgres', 'SELECT count(*) = 1 FROM other');
	is(asked(), 'one 1', 'a statement trigger does not fire in an apply worker');

	# failures
	use_scripts('422');
	$one->safe_psql('postgres', 'ALTER TABLE replicated DISABLE TRIGGER t; ALTER TABLE other DISABLE TRIGGER t');
	$insert->(40, 40);
	$one->safe_psql('postgres', "INSERT INTO other VALUES (2, '{$ADDRESS}')");
	ok($two->poll_query_until('postgres', "SELECT apply_error_count >= 2 FROM pg_stat_subscription_stats WHERE subname = 's'"),
		'a call that fails is tried again and again');
	cmp_ok(scalar(@{ $sandbox->journal->{requests} }), '>=', 2, 'and asks the API each time');
	is($two->safe_psql('postgres', 'SELECT (SELECT count(*) FROM replicated WHERE id = 40), (SELECT count(*) FROM other WHERE id = 2)'),
		'0|0', 'meanwhile nothing of the subscription arrives, other tables included');
	$two->safe_psql('postgres', 'ALTER SUBSCRIPTION s SET (disable_on_error = true)');
	ok($two->poll_query_until('postgres', "SELECT NOT subenabled FROM pg_subscription WHERE subname = 's'"),
		'disable_on_error stops the subscription');
	$two->safe_psql('postgres', 'ALTER TABLE replicated ENABLE TRIGGER t; ALTER SUBSCRIPTION s ENABLE');
	$wait->(1, 40);
	ok($two->poll_query_until('postgres', 'SELECT count(*) = 1 FROM other WHERE id = 2'), 'with an ordinary trigger all of it arrives');

	# the first copy
	use_scripts('201');
	$two->safe_psql('postgres', 'DROP SUBSCRIPTION s');
	$two->safe_psql('postgres', 'TRUNCATE replicated, other; ALTER TABLE replicated ENABLE ALWAYS TRIGGER t');
	$two->safe_psql('postgres', $subscribe);
	$two->wait_for_subscription_sync($one, 's');
	is(asked(), 'two 31', 'the first copy issues for each row again, for statement triggers, too');
	$two->safe_psql('postgres', 'DROP SUBSCRIPTION s');
	return;
}

#
# The documents, and the servers
#

# The SQL blocks of a document below this title.
sub blocks_of
{
	my ($document, $title) = @_;
	my ($section) = slurp_file("$FindBin::RealBin/../docs/$document.md") =~ /^(\Q$title\E.*)/ms
	  or die "docs/$document.md has no section \"$title\"";

	# all of the document, or up to the next recipe
	$section =~ s/\n## .*//s unless $document eq 'scaling';
	return $section =~ /^```sql\n(.*?)^```/msg;
}

# Runs a block through psql as it is printed.
sub run_block
{
	my ($block) = @_;
	my ($first) = $block =~ /^((?!BEGIN).+)/m;
	my $out = '';

	ok( IPC::Run::run(
			[ $one->installed_command('psql'), '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $one->connstr('postgres') ],
			'<', \$block, '>&', \$out, IPC::Run::timeout(2 * $PostgreSQL::Test::Utils::timeout_default)),
		"\"$first\" runs without an error") or diag($out);
	return $out;
}

# Makes both servers call this script from now on, each under its own name.
sub use_scripts
{
	my ($script) = @_;

	foreach my $node ($one, $two)
	{
		my $url = $sandbox->script($script) . ',id=' . $node->name;

		$node->safe_psql('postgres', "ALTER SYSTEM SET sw_guest_token.base_url = '$url'");
		$node->reload;
		$node->poll_query_until('postgres', "SELECT current_setting('sw_guest_token.base_url') = '$url'");
	}
	$sandbox->reset;
	return;
}

# How many requests each server has sent since.
sub asked
{
	my %n;

	$n{ $_->{path} =~ /id=(\w+)/ ? $1 : 'other' }++ foreach @{ $sandbox->journal->{requests} };
	return join ' ', map { "$_ $n{$_}" } sort keys %n;
}
