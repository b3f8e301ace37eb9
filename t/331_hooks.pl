# Together with other modules: those that hook into planner and executor, loaded
# before or after the library, one that watches access, and one that uses libcurl
# and signals in its own way.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use SwTest;
use Test::More;

my $library_path = qx(pg_config --pkglibdir);
chomp $library_path;
my %has = map { $_ => -e "$library_path/$_.so" } qw(auto_explain pg_stat_statements pg_hint_plan);
my @modules = grep { $has{$_} } sort keys %has;
my $directory = PostgreSQL::Test::Utils::tempdir;
my $sandbox = start_sandbox();
my $FUNCTION = 'sw_create_guest_token(v.addresses)';
my $QUERY = "SELECT v.id, t.token FROM visitor v, $FUNCTION t";
my $VISITORS = <<'EOC';
CREATE TABLE visitor (id int PRIMARY KEY, addresses uuid[]);
INSERT INTO visitor
	SELECT n, ARRAY[('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid]
	FROM generate_series(1, 40) n;
ANALYZE;
EOC

# build(SOURCE, FLAG...): a module for the server.
sub build
{
	my ($source, @flags) = @_;
	my $module = "$directory/" . $source =~ s{.*/(.*)c$}{$1so}r;
	my $include = qx(pg_config --includedir-server);

	chomp $include;
	ok(IPC::Run::run([ $ENV{CC} || 'cc', '-shared', '-fPIC', '-Wall', "-I$include", '-o', $module, $source, @flags ]),
		"$source is built");
	return $module;
}

# A security module is told of each function before it is called.
SKIP:
{
	skip 'there is no compiler', 10
	  unless eval { IPC::Run::run([ $ENV{CC} || 'cc', '--version' ], '>', '/dev/null') };

	my $node = start_server('access');
	my $hook = build('t/execute_hook.c');

	use_sandbox($node, $sandbox);
	$node->safe_psql('postgres', $VISITORS);
	foreach my $read_ahead ('off', 'on')
	{
		my $session = run_session($node, "LOAD '$hook'", "SET sw_guest_token.read_ahead = $read_ahead",
			"SELECT count(t.token) FROM visitor v, $FUNCTION t", "SELECT count(sw_try_create_guest_token(v.addresses)) FROM visitor v",
			$ONE);
		is($session->{out}, "40\n40\ntoken true\n", "read_ahead $read_ahead: the calls are made");
		my @executed = $session->{err} =~ /executes (\w+)/g;
		is("@executed", 'sw_create_guest_token sw_try_create_guest_token sw_create_guest_token',
			"read_ahead $read_ahead: a security module is told of each function, once a statement");
	}

	# libcurl keeps functions of another module until that has ended its use
	my $module = build('t/other_module.c', '-lcurl');
	$node->safe_psql('postgres', <<"EOC");
CREATE FUNCTION use_server_memory() RETURNS int AS '$module' LANGUAGE C;
CREATE FUNCTION reset_profiler() RETURNS void AS '$module' LANGUAGE C;
EOC
	my $session = run_session($node, 'BEGIN', 'SELECT use_server_memory()', $ONE, 'ROLLBACK', $ONE,
		'BEGIN', 'SELECT use_server_memory()', $ONE, 'COMMIT', $ONE);
	is(sql_state($session->{err}), '55000', 'a call is refused while libcurl has the memory of a transaction');
	like($session->{err}, qr/DETAIL:  Another module makes it use PostgreSQL's memory contexts/, 'which the message says');
	is($session->{out}, "0\ntoken true\n0\ntoken true\ntoken true\n", 'and is made as soon as it has not, and from then on');

	# the watchdog's timer stops by itself, and is started again
	is(run_session($node, ($ONE, 'SELECT reset_profiler()') x 2, $ONE)->{out},
		"token true\n\ntoken true\n\ntoken true\n", 'the watchdog does not rely on its signal\'s handler');
	$node->stop;
}

foreach my $order (@modules ? ([ @modules, 'sw_guest_token' ], [ 'sw_guest_token', @modules ]) : ())
{
	my $where = $order->[0] eq 'sw_guest_token' ? 'after' : 'before';
	my $node = start_server("hooks_$where",
		"shared_preload_libraries = '" . join(', ', @$order) . "'\n"
		  . "sw_guest_token.max_retries = 0\ncompute_query_id = on\n");
	my @settings = ('SET sw_guest_token.read_ahead = on');

	use_sandbox($node, $sandbox);
	$node->safe_psql('postgres', $VISITORS);
	push @settings, map { "SET auto_explain.$_" } 'log_min_duration = 0', 'log_analyze = on', 'log_verbose = on',
	  'log_nested_statements = on'
	  if $has{auto_explain};
	$node->safe_psql('postgres', 'CREATE EXTENSION pg_stat_statements') if $has{pg_stat_statements};
	push @settings, "SET pg_stat_statements.track = 'all'" if $has{pg_stat_statements};

	$sandbox->reset;
	my $url = $sandbox->script('hold,n=16');
	my $session = run_session($node, @settings, "SET sw_guest_token.base_url = '$url'", $QUERY);
	is(scalar(split /\n/, $session->{out}), 40, "modules loaded $where: all rows come");
	is($session->{err}, '', "modules loaded $where: without an error");
	is($sandbox->attempts . ' ' . $sandbox->journal->{max_in_flight}, '40 16', "modules loaded $where: they are read ahead");

	# from PL/pgSQL, and with an error that is caught
	$session = run_session($node, @settings, "SET sw_guest_token.base_url = '" . $sandbox->script('201-then-201-then-422-then-201') . "'",
		<<"EOC", $ONE);
DO \$\$
DECLARE n int := 0;
BEGIN
	SELECT count(t.token) INTO n FROM visitor v, $FUNCTION t;
EXCEPTION WHEN invalid_parameter_value THEN
	SELECT count(t.token) INTO n FROM visitor v, $FUNCTION t WHERE v.id <= 20;
	ASSERT n = 20;
END \$\$
EOC
	is($session->{err} . $session->{out}, "token true\n", "modules loaded $where: an error that is caught does no harm");

	SKIP:
	{
		skip 'the server has no auto_explain', 1 unless $has{auto_explain};
		like(slurp_file($node->logfile),
			qr/Custom Scan \(Guest Tokens\) .*rows=40.*Calls per Row: 1\n\s*Requests: 40\n\s*Requests in Flight: 16\n/s,
			"modules loaded $where: auto_explain shows what the node did");
	}
	SKIP:
	{
		skip 'the server has no pg_stat_statements', 1 unless $has{pg_stat_statements};
		is($node->safe_psql('postgres', "SELECT calls, rows FROM pg_stat_statements WHERE query LIKE 'SELECT v.id, t.token FROM visitor%'"),
			'1|40', "modules loaded $where: pg_stat_statements counts the query");
	}
	SKIP:
	{
		skip 'the server has no pg_hint_plan', 2 unless $has{pg_hint_plan};

		# not all versions scan an index without a condition on it
		my $explain = "EXPLAIN (COSTS OFF) $QUERY WHERE v.id > 0";
		$session = run_session($node, @settings, "/*+ IndexScan(v) */ $explain", $explain);
		like($session->{out}, qr/^Custom Scan \(Guest Tokens\)\n  Calls per Row: 1\n  ->  Index Scan/,
			"modules loaded $where: a hint is taken, and the plan reads ahead");
		like($session->{out}, qr/Custom Scan \(Guest Tokens\)\n  Calls per Row: 1\n  ->  Seq Scan/,
			"modules loaded $where: without it the plan is another");
	}
	$node->stop;
}

done_testing();
