# Several batches open at once in one session: whoever waits drives all of them,
# and whatever ends one of them leaves the others alone.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SwTest;
use Test::More;

my $directory = PostgreSQL::Test::Utils::tempdir;
my ($cc) = grep { defined && length } ($ENV{CC}, 'cc');
my @objects = grep { -e s/o$/c/r } glob 'src/*.o';

# run(COMMAND...): whether the command succeeds.
sub run
{
	my ($out, $err) = ('', '');
	my $ok = eval { IPC::Run::run([@_], '<', \undef, '>', \$out, '2>', \$err) };

	note($err) if length $err;
	return $ok;
}

plan skip_all => 'linking with --wrap is for Linux' unless $^O eq 'linux';
plan skip_all => 'the extension was not built here' unless @objects;
plan skip_all => 'there is no compiler' unless run($cc, '--version');

my $has_shim = run($cc, '-shared', '-fPIC', '-o', "$directory/shim.so", 't/shim.c', '-ldl');
my $node = start_server('batches', "shared_preload_libraries = ''\n");
my $sandbox = start_sandbox();
my $driver = start_sandbox();

# The runtimes that the objects were built with must be linked, too.
my $library = "$directory/batch_test.so";
my $built = slurp_file('src/batch.o');
my %runtimes = (__asan_ => '-fsanitize=address', __ubsan_ => '-fsanitize=undefined', __gcov_ => '--coverage');
my @flags = map { $runtimes{$_} } grep { $built =~ /$_/ } sort keys %runtimes;
ok( run($cc, '-fPIC', '-O1', '-Wall', '-I' . $node->config_data('--includedir-server'),
		'-c', '-o', "$directory/batch_test.o", 't/batch_test.c')
	  && run($cc, '-shared', @flags, '-Wl,--wrap=sgt_perform', '-o', $library,
		"$directory/batch_test.o", @objects, '-lcurl', '-ljson-c'),
	'a library lets SQL hold several batches') or BAIL_OUT('the library cannot be built');

if ($has_shim)
{
	local $ENV{LD_PRELOAD} = "$directory/shim.so";
	local $ENV{SHIM_DIRECTORY} = $directory;
	$node->restart;
}

# A program, run by the server, that talks to the sandbox and reads nothing.
sub http
{
	my ($method, $url) = @_;
	my $perl = "HTTP::Tiny->new(timeout => 300)->request(q{$method}, q{$url})";

	return "COPY (SELECT) TO PROGRAM '" . ("cat >/dev/null; $^X -MHTTP::Tiny -e '$perl'" =~ s/'/''/gr) . "'";
}

my $functions = join '', map { "CREATE FUNCTION $_ AS '$library' LANGUAGE C;\n" } (
	'batch_begin(n int, script text, parent text) RETURNS void',
	'batch_submit(n int, tag int) RETURNS void',
	'batch_wait(n int, tag int) RETURNS text',
	'batch_release(n int, tag int) RETURNS void',
	'batch_stop(n int) RETURNS void',
	'batch_end(n int) RETURNS void',
	'batch_is_open(n int) RETURNS bool',
	'batch_pending() RETURNS int',
	'batch_wait_for_place(n int, places int) RETURNS int',
	'batch_state(n int, tag int) RETURNS text',
	'batch_fail_report(tag int) RETURNS void',
	'batch_hold_report(tag int, ms int) RETURNS void',
	'batch_cancel_overdue(tag int) RETURNS void');
$node->safe_psql('postgres', <<"EOQ");
$functions
-- the extension's own, in this library
CREATE FUNCTION one(uuid[], int, text, text, interval) RETURNS sw_guest_token
	AS '$library', 'sw_create_guest_token' LANGUAGE C;

-- begins a batch with some requests
CREATE FUNCTION send(n int, tags int[], script text, parent text DEFAULT 'session') RETURNS void AS \$\$
	SELECT batch_begin(n, script, parent);
	SELECT batch_submit(n, tag) FROM unnest(tags) tag;
\$\$ LANGUAGE SQL;

-- waits for a request of another batch to another server
CREATE FUNCTION drive() RETURNS void AS \$\$
BEGIN
	PERFORM send(0, '{999}', '201', 'subtransaction');
	PERFORM batch_wait(0, 999);
	PERFORM batch_end(0);
END
\$\$ LANGUAGE plpgsql
SET sw_guest_token.base_url = '$driver->{url}' SET sw_guest_token.timeout = '100s';

-- drives until a request is in a state
CREATE FUNCTION drive_until(n int, tag int, state text) RETURNS void AS \$\$
BEGIN
	WHILE batch_state(n, tag) <> state LOOP
		PERFORM drive();
	END LOOP;
END
\$\$ LANGUAGE plpgsql;

-- drives until that fails
CREATE FUNCTION drive_into_error() RETURNS text AS \$\$
BEGIN
	LOOP
		PERFORM drive();
	END LOOP;
EXCEPTION WHEN out_of_memory OR query_canceled THEN
	RETURN SQLSTATE;
END
\$\$ LANGUAGE plpgsql;

-- the outcome of a call
CREATE FUNCTION call() RETURNS text AS \$\$
BEGIN
	RETURN 'token ' || (SELECT token IS NOT NULL FROM one('{$ADDRESS}', NULL, NULL, NULL, NULL));
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END
\$\$ LANGUAGE plpgsql SET sw_guest_token.max_retries = 0;

-- what is left of batches
CREATE FUNCTION leftovers() RETURNS text AS \$\$
	SELECT format('%s batches, at most one target: %s',
		count(*) FILTER (WHERE name = 'sw_guest_token batch'),
		count(*) FILTER (WHERE name = 'sw_guest_token target') <= 1)
	FROM pg_backend_memory_contexts;
\$\$ LANGUAGE SQL;

CREATE FUNCTION targets() RETURNS text AS \$\$
	SELECT format('%s targets', count(*)) FROM pg_backend_memory_contexts WHERE name = 'sw_guest_token target';
\$\$ LANGUAGE SQL;

-- SIGHUP, SIGINT, SIGUSR1, SIGUSR2, SIGALRM, SIGTERM
CREATE FUNCTION blocked_signals() RETURNS int AS \$\$
	SELECT ('x' || substring(pg_read_file('/proc/self/status') FROM 'SigBlk:\\s*\\w{8}(\\w{8})'))::bit(32)::int
		& (1 << 0 | 1 << 1 | 1 << 9 | 1 << 11 | 1 << 13 | 1 << 14);
\$\$ LANGUAGE SQL;
EOQ

my $use_sandbox = "SET sw_guest_token.base_url = '$sandbox->{url}'";
my @begin = (
	"LOAD '$library'",
	$use_sandbox,
	"SET sw_guest_token.project_id = '00000000-0000-4000-8000-000000000000'",
	"SET sw_guest_token.api_token = 'PTsandbox'",
	"SET statement_timeout = '180s'");

# begin_session(SQL...): starts a session that has the library.  Anything that is not
# a command is an expression; undefined values are left out.
sub begin_session
{
	return session($node, @begin, map { /^[A-Z]+\b/ ? $_ : "SELECT $_" } grep { defined } @_);
}

# What a session has printed by its end, without the lines of void functions.
sub says
{
	my ($session) = @_;

	return join ' / ', grep { length } map { s/^\|+|\|+$//gr } split /\n/, $session->finish->{out};
}

# run_statements(SQL...): what such a session prints, and its errors.
sub run_statements
{
	my $session = begin_session(@_);
	my $said = says($session);
	my $states = sql_state($session->{err});

	note($session->{err}) if $states;
	return $said . ($states ? " / errors $states" : '');
}

# A statement that adds a request to those that a script holds.
sub release
{
	my ($script) = @_;

	return http('POST', $sandbox->script($script) . '/api/fabric/guests/tokens');
}

# A statement that waits until the sandbox has N requests.
sub arrive
{
	my ($n) = @_;

	return http('GET', "$sandbox->{url}/_sandbox/journal?wait=$n");
}

# What the sandbox has seen since its last reset.
sub requests
{
	return @{ $sandbox->journal->{requests} };
}

# What is left when the batches are gone, and the outcome of the next call.
my @epilogue = ('leftovers()', 'blocked_signals()', 'call()');
my $CLEAN = '0 batches, at most one target: t / 0 / token true';

#
# An error and a cancel while one batch waits
#

foreach my $case ([ 'a cancel', 'hang', '57014' ], [ 'an error', '201', '53200' ])
{
	my ($name, $script, $state) = @$case;

	$sandbox->reset;
	my $session = begin_session(
		"SET log_min_messages = 'debug1'",
		"send(1, '{1,2}', 'hold,n=3')",
		"drive_until(1, 1, 'waiting'), drive_until(1, 2, 'waiting')",
		$state eq '53200' ? 'batch_fail_report(3)' : undef,
		"send(2, '{3}', '$script', 'portal'), batch_wait(2, 3)",
		'batch_is_open(2), batch_state(1, 1), batch_state(1, 2)',
		release('hold,n=3'),
		'batch_wait(1, 1)', 'batch_wait(1, 2)', 'batch_end(1)', @epilogue);
	if ($state eq '57014')
	{
		$sandbox->journal(3);
		$node->safe_psql('postgres',
			"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'");
	}
	is(says($session),
		"f|waiting|waiting / 1: answered, 201 after 1 / 2: answered, 201 after 1 / $CLEAN",
		"$name in a wait ends that batch, and the other's requests complete");
	is(sql_state($session->{err}), $state, 'it is raised');
	my @connections = map { $_->{connection} } requests();
	is(scalar(@connections), 5, 'nothing is sent again');
	ok((grep { $_ == $connections[-1] } @connections[ 0, 1 ]), 'and the connections are kept');
}

#
# Whoever waits drives everybody's requests
#

# the first and the fourth request wait for one another
my $script = 'hold,n=2-then-201-then-201-then-hold,n=2';
$sandbox->reset;
is(run_statements(
		"send(1, '{1}', '$script')", "drive_until(1, 1, 'waiting')", arrive(1),
		'batch_submit(1, 2)', "drive_until(1, 2, 'done')",
		'batch_submit(1, 3)', "drive_until(1, 3, 'done')",
		'batch_submit(1, 4)', "drive_until(1, 1, 'done'), drive_until(1, 4, 'done')",
		'batch_wait(1, 3)',
		"send(2, '{9}', '201'), batch_wait(2, NULL), batch_wait(2, NULL) IS NULL",
		'batch_wait(1, NULL)',
		"left(batch_wait(1, NULL), 1) || left(batch_wait(1, NULL), 1) IN ('14', '41')",
		'batch_wait(1, NULL) IS NULL', 'batch_state(1, 2)',
		'batch_release(1, 2)', 'batch_end(2), batch_end(1)', @epilogue),
	"3: answered, 201 after 1 / 9: answered, 201 after 1|t / 2: answered, 201 after 1 / t / t / handed out / $CLEAN",
	'requests complete while another batch is waited for, and are handed out by their own, first come, first served');

#
# Subtransactions
#

$sandbox->reset;
is(run_statements(
		'BEGIN',
		"send(1, '{1}', 'hold,n=4', 'transaction')",
		'SAVEPOINT a',
		"send(2, '{2}', 'hold,n=4', 'subtransaction'), drive_until(2, 2, 'waiting')",
		'RELEASE a',
		'SAVEPOINT b',
		"send(3, '{3}', 'hang', 'subtransaction'), batch_submit(1, 11)",
		"drive_until(3, 3, 'waiting'), drive_until(1, 11, 'waiting')",
		<<'EOQ',
DO $$
BEGIN
	PERFORM send(4, '{4}', 'hang', 'subtransaction');
	PERFORM drive_until(4, 4, 'waiting');
	RAISE division_by_zero;
EXCEPTION WHEN division_by_zero THEN
END
$$
EOQ
		'batch_is_open(1), batch_is_open(2), batch_is_open(3), batch_is_open(4)',
		'ROLLBACK TO b',
		'batch_is_open(1), batch_is_open(2), batch_is_open(3), batch_is_open(4)',
		release('hold,n=4'),
		'batch_wait(1, 1), batch_wait(1, 11), batch_wait(2, 2)',
		'COMMIT',
		'batch_is_open(1), batch_is_open(2)', @epilogue),
	"t|t|t|f / t|t|f|f / 1: answered, 201 after 1|11: answered, 201 after 1|2: answered, 201 after 1 / f|f / $CLEAN",
	'the end of a subtransaction ends the batch that began in it, and no other');
is(scalar(requests()), 7, 'and nothing is sent again');

#
# Batches abandoned in every state of a request
#

mkdir "$directory/good";
my ($good, $key) = make_certificate("$directory/good");
my ($listener, $port) = listen_dumbly();
my ($full_listener, $full_port) = listen_dumbly(1);
my @waiting = map {
	IO::Socket::INET->new(PeerAddr => "127.0.0.1:$full_port", Proto => 'tcp', Blocking => 0)
} 1 .. 4;
my $starve = "COPY (SELECT 1) TO '$directory/fail_socket'";
my $feed = "COPY (SELECT 1) TO PROGRAM 'cat >/dev/null; rm -f $directory/fail_socket'";

# how to bring requests of batch 1 into a state, and their states
my @states = (
	[ 'not started', "send(1, '{1}', '201', PARENT)", 'ready' ],
	[ 'connecting', "SET sw_guest_token.base_url = 'http://127.0.0.1:$full_port'",
		"send(1, '{1}', '201', PARENT), drive()", $use_sandbox, 'connecting' ],

	# the system's authorities take seconds to read with the shim
	[ 'negotiating TLS', "SET sw_guest_token.base_url = 'https://127.0.0.1:$port'",
		"SET sw_guest_token.ca_file = '$good'",
		"send(1, '{1}', '201', PARENT), drive_until(1, 1, 'connected')",
		'RESET sw_guest_token.ca_file', $use_sandbox, 'connected' ],
	[ 'waiting for the response', "send(1, '{1}', 'hang', PARENT), drive_until(1, 1, 'waiting')", 'waiting' ],
	[ 'receiving it', "send(1, '{1}', 'drip,ms=50,size=10000', PARENT), drive_until(1, 1, 'receiving')", 'receiving' ],
	[ 'overdue', 'batch_cancel_overdue(1)', "SET sw_guest_token.timeout = '100ms'",
		"send(1, '{1}', 'hang', PARENT), drive_into_error()", 'RESET sw_guest_token.timeout', 'overdue' ],
	[ 'ended', "SET log_min_messages = 'debug1'", 'batch_fail_report(1)',
		"send(1, '{1}', '201', PARENT), drive_into_error()", 'ended' ],
	[ 'paused', "SET sw_guest_token.max_retries = 100",
		"send(1, '{1}', '503,retry-after=2', PARENT), drive_until(1, 1, 'paused')", 'paused' ],
	[ 'done', "send(1, '{1}', '201', PARENT), drive_until(1, 1, 'done')", 'done' ],
	[ 'handed out', "send(1, '{1}', '201', PARENT), batch_wait(1, 1)", 'handed out' ],
	[ 'stopped', "send(1, '{1}', 'hang', PARENT), drive_until(1, 1, 'waiting')",
		'batch_submit(1, 2), batch_stop(1)', 'waiting', 'done' ]);
push @states,
  [ 'looking a name up', "SET sw_guest_token.base_url = 'https://slow.invalid'",
	"send(1, '{1}', '201', PARENT), drive()", $use_sandbox, 'connecting' ],

  # the driver's connection is kept alive, and there is no other
  [ 'starved', "send(1, '{1}', 'hang', PARENT), drive_until(1, 1, 'waiting'), drive()",
	$starve, 'batch_submit(1, 2), drive()', 'waiting', 'ready' ]
  if $has_shim;
foreach my $case (@states)
{
	my ($name, @setup) = @$case;
	my @expected;
	unshift @expected, pop @setup while $setup[-1] !~ /[(]|^[A-Z]/;
	my $look = join ', ', map { "batch_state(1, $_)" } 1 .. @expected;

	foreach my $way (
		[ 'ends', q('session'), [], ['batch_end(1)'] ],
		[ 'is rolled back', q('transaction'), ['BEGIN'], ['ROLLBACK'] ],
		[ 'is rolled back to a savepoint', q('subtransaction'), [ 'BEGIN', 'SAVEPOINT s' ], [ 'ROLLBACK TO s', 'COMMIT' ] ])
	{
		my ($end, $parent, $begin, $abandon) = @$way;

		# the second round must find what the first has found
		my @round = (
			@$begin, (map { s/PARENT/$parent/r } @setup), "'state', $look", @$abandon,
			$feed, 'batch_is_open(1)', @epilogue,

			# other authorities make the engine start afresh, if nothing is left
			"SET sw_guest_token.ca_file = '$library'",
			$has_shim ? ($starve, 'call()', $feed) : (),
			'call()', 'RESET sw_guest_token.ca_file', 'call()',
			count_descriptors() =~ s/SELECT //r);
		my $said = run_statements(@round, @round);
		my ($first, $second) = $said =~ /^(.*descriptors \d+) \/ (.*)$/;
		like($second, qr{\Q@{[join '|', 'state', @expected]} / f / $CLEAN / @{[ $has_shim ? '08001 / ' : '' ]}token true / token true / descriptors \E\d+$},
			"a batch $end with a request $name");

		# a look-up has two descriptors of its own until it ends
		next if $name =~ /name/;
		is((split m{ / }, $second)[-1], (split m{ / }, $first)[-1], 'and leaves no descriptor open');
	}
}


#
# A descriptor is missing, and comes back
#

SKIP:
{
	skip 'no shim can be preloaded', 1 unless $has_shim;

	# the first attempt gets the kept-alive connection, the second gets none
	is(run_statements(
			'call()', "send(1, '{1}', 'hang'), drive_until(1, 1, 'waiting')", 'call()', 'drive()',
			$starve, "SET sw_guest_token.timeout = '3s'",
			"send(2, '{2}', '503,close=1'), batch_wait(2, 2)",
			'batch_state(1, 1)', $feed,
			'batch_end(2), batch_end(1)', @epilogue),
		"token true / token true / 2: no descriptor, 503 after 1 / waiting / $CLEAN",
		'a retry that gets no descriptor ends at its deadline, and others go on');

	# a request sent over a connection that the server then closed has a deadline,
	# although no attempt counts; a request that was never sent has none
	is(run_statements(
			'call()', "send(1, '{1}', 'hang'), drive_until(1, 1, 'waiting')", 'call()', 'drive()',
			$starve, "SET sw_guest_token.timeout = '3s'",
			"send(2, '{2,3}', 'close'), batch_wait(2, 2)", 'batch_state(1, 1), batch_state(2, 3)', $feed,
			'batch_end(2), batch_end(1)', @epilogue),
		"token true / token true / 2: no descriptor, 0 after 1 / waiting|ready / $CLEAN",
		'a request that is to be sent again and gets no descriptor ends at its deadline, too');

	# all requests that failed in one turn get the idle connections' descriptors
	is(run_statements(
			'call()', "SET sw_guest_token.base_url = '$driver->{url}'", 'SET sw_guest_token.max_retries = 0',
			"COPY (SELECT 3) TO '$directory/fail_sockets'",
			"send(1, '{1,2,3}', '201'), batch_wait(1, 1), batch_wait(1, 2), batch_wait(1, 3)", 'batch_end(1)', @epilogue),
		"token true / 1: answered, 201 after 1|2: answered, 201 after 1|3: answered, 201 after 1 / $CLEAN",
		'idle connections make room for all that need it');
}

#
# FATAL, and the end of a session
#

foreach my $parent ('session', 'transaction')
{
	$sandbox->reset;
	my $session = begin_session('BEGIN', "send(1, '{1}', 'hang', '$parent')",
		"send(2, '{2}', 'hang', 'portal'), batch_wait(2, 2)");
	$sandbox->journal(2);
	$node->safe_psql('postgres',
		"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'");
	says($session);
	is(sql_state($session->{err}), '57P01', "a process that is terminated with two batches open ends (parent: $parent)");
}
is(run_statements("send(1, '{1}', 'hang'), drive_until(1, 1, 'waiting')", "'bye'"), 'bye',
	'a session may end with a batch open');
is(run_statements(@epilogue), $CLEAN, 'and the next one works');

#
# A batch keeps what it began with
#

# credentials, from the setting and from the file
my $file = "$directory/api_token";
append_to_file($file, 'PTsandbox');
chmod 0600, $file;
$script = '503,retry-after=1-then-503,retry-after=1-then-201';
my $other = start_sandbox('--api-token', 'PTother');
foreach my $case (
	[ 'api_token', "SET sw_guest_token.api_token = 'PTother'" ],
	[ 'the file of api_token_file', "COPY (SELECT 'PTother') TO PROGRAM 'cat >$file'" ])
{
	my ($name, $change) = @$case;

	$sandbox->reset;
	$other->reset;
	is(run_statements(
			$name eq 'api_token' ? undef : "SET sw_guest_token.api_token_file = '$file'",
			"send(1, '{1,2}', '$script')",
			"drive_until(1, 1, 'paused'), drive_until(1, 2, 'paused')",
			$change, "SET sw_guest_token.base_url = '$other->{url}'",
			"send(2, '{3}', '201,close=1'), batch_wait(2, 3)", 'targets()',
			'batch_submit(1, 4)', 'batch_wait(1, 1)', 'batch_wait(1, 2)', 'batch_wait(1, 4)',
			'batch_end(2)', 'batch_end(1)', 'targets()', @epilogue),
		'3: answered, 201 after 1 / 2 targets / '
		  . "1: answered, 201 after 2 / 2: answered, 201 after 2 / 4: answered, 201 after 1 / 1 targets / $CLEAN",
		"$name and base_url change: an open batch goes on with what it began with");
	is(join(' ', map { $_->{authorized} ? 'yes' : 'no' } requests()), 'yes yes yes yes yes', 'retries included');
	is(scalar(grep { $_->{authorized} } @{ $other->journal->{requests} }), 2, 'and a new one uses the new');
}

# certificate authorities: another file, and the same file when it has changed
mkdir "$directory/bad";
my ($bad) = make_certificate("$directory/bad");
my $tls = start_sandbox('--tls-cert', $good, '--tls-key', $key);
append_to_file("$directory/ca.pem", slurp_file($good));
my @use_tls = ("SET sw_guest_token.base_url = '$tls->{url}'", "SET sw_guest_token.ca_file = '$directory/ca.pem'");
is(run_statements(
		@use_tls, "send(1, '{1}', '503,close=1,retry-after=1-then-201,close=1')", "drive_until(1, 1, 'paused')",
		"SET sw_guest_token.ca_file = '$bad'",
		'SET sw_guest_token.max_retries = 0',
		"send(2, '{2}', '201'), batch_wait(2, 2)", 'batch_wait(1, 1)', 'batch_end(2), batch_end(1)',
		'targets()',
		@use_tls, "send(1, '{1}', '201,close=1'), batch_wait(1, 1)",
		"COPY (SELECT) TO PROGRAM 'cat >/dev/null; cat $bad >$directory/ca.pem'",
		'batch_submit(1, 2), batch_wait(1, 2), batch_end(1)',
		"send(2, '{3}', '201'), batch_wait(2, 3), batch_end(2)",
		$use_sandbox, @epilogue),
	'2: bad certificate, 0 after 1 / 1: answered, 201 after 2 / 1 targets / 1: answered, 201 after 1 / '
	  . "2: answered, 201 after 1 / 3: bad certificate, 0 after 1 / $CLEAN",
	'ca_file changes: an open batch goes on with what it began with');

#
# Deadlines
#

$sandbox->reset;
is(run_statements(
		"SET sw_guest_token.timeout = '500ms'", "send(1, '{1,2}', 'hang')",
		"RESET sw_guest_token.timeout",
		"send(2, '{3}', '201,delay=2000'), batch_wait(2, 3)",
		'batch_state(1, 1), batch_state(1, 2)', 'batch_wait(1, 1)', 'batch_wait(1, 2)',
		'batch_end(1)', 'batch_end(2)', @epilogue),
	'3: answered, 201 after 1 / done|done / 1: timed out, 0 after 1, waiting for the response / '
	  . "2: timed out, 0 after 1, waiting for the response / $CLEAN",
	'deadlines pass while another batch is waited for');

# nobody drives until the answer has come and the deadline has passed
$sandbox->reset;
is(run_statements(
		"SET sw_guest_token.timeout = '3s'",
		"send(1, '{1}', 'hold,n=2'), send(2, '{2}', 'hang')",
		"drive_until(1, 1, 'waiting'), drive_until(2, 2, 'waiting')",
		release('hold,n=2'), 'pg_sleep(3.1)',
		'batch_state(1, 1), batch_state(2, 2)',
		'batch_wait(1, 1)', 'batch_wait(2, 2)', 'batch_end(1)', 'batch_end(2)', @epilogue),
	'waiting|waiting / 1: answered, 201 after 1 / '
	  . "2: timed out, 0 after 1, waiting for the response / $CLEAN",
	'deadlines pass while nobody waits: an answer that has come counts');

# time that a report takes, because a client does not read it, counts for no other request
$sandbox->reset;
is(run_statements(
		"SET log_min_messages = 'debug1'", "SET sw_guest_token.timeout = '2s'", 'batch_hold_report(1, 4000)',
		"send(1, '{1}', '201'), send(2, '{2}', '201,delay=4500')",
		'batch_wait(1, 1)', 'batch_wait(2, 2)', 'batch_end(1)', 'batch_end(2)', @epilogue),
	"1: answered, 201 after 1 / 2: answered, 201 after 1 / $CLEAN",
	'a deadline does not count the time in which a client does not read');

# nor if it has already passed: the process was stopped, and an answer is reported first
# (over existing connections: on a new one, libcurl's own timer would reveal the stop)
$sandbox->reset;
my $stopped = begin_session(
	"SET log_min_messages = 'debug1'", "SET sw_guest_token.timeout = '2s'", 'pg_backend_pid()', 'batch_hold_report(1, 4000)',
	"send(3, '{31,32}', 'hold,n=2')", 'batch_wait(3, 31)', 'batch_wait(3, 32)', 'batch_end(3)',
	"send(1, '{1}', '201,delay=1000'), send(2, '{2}', '201,delay=5000')",
	'batch_wait(1, 1)', 'batch_wait(2, 2)', 'batch_end(1)', 'batch_end(2)', @epilogue);
my ($stopped_pid) = $stopped->wait_for(qr/^(\d+)\n/);
$sandbox->journal(4);
stop_process($stopped_pid, 2.2);
is(says($stopped), join(' / ', $stopped_pid, map({ "$_: answered, 201 after 1" } 31, 32, 1, 2), $CLEAN),
	'nor does a deadline that has passed meanwhile');

#
# Stopping, and places
#

$sandbox->reset;
is(run_statements(
		"send(1, '{1}', 'hold,n=4'), drive_until(1, 1, 'waiting')",
		"send(2, '{11}', 'hold,n=4'), drive_until(2, 11, 'waiting')",
		"send(3, '{21}', '503,retry-after=2'), drive_until(3, 21, 'paused')",
		'batch_submit(1, 2)', 'batch_submit(2, 12)', 'batch_stop(1)', 'batch_stop(3)',
		'batch_state(1, 1), batch_state(1, 2), batch_state(2, 11), batch_state(2, 12), batch_state(3, 21)',
		"drive_until(2, 12, 'waiting')", release('hold,n=4'),
		'batch_wait(1, 1)', 'batch_wait(1, 2)', 'batch_wait(2, 11)', 'batch_wait(2, 12)', 'batch_wait(3, 21)',
		'batch_end(1)', 'batch_end(2)', 'batch_end(3)', @epilogue),
	'waiting|done|waiting|ready|done / 1: answered, 201 after 1 / 2: not sent, 0 after 0 / '
	  . "11: answered, 201 after 1 / 12: answered, 201 after 1 / 21: answered, 503 after 1 / $CLEAN",
	'a batch that is stopped sends nothing more, and leaves others alone');

# a request that has been sent, with or without an answer, counts as sent
{
	my $raw = start_raw({
			http1 => 1, hang => 1,
			script => { bytes => raw_response('503 No', '', 'Retry-After: 1', 'Connection: close'), end => 'close' } },
		$good, $key);

	is(run_statements(
			"SET sw_guest_token.base_url = '$raw->{url}'", "SET sw_guest_token.ca_file = '$good'",
			"send(1, '{1}', 'x'), drive_until(1, 1, 'paused'), drive_until(1, 1, 'connected')",
			'RESET sw_guest_token.ca_file', $use_sandbox,
			'batch_stop(1)', 'batch_wait(1, 1)', 'batch_end(1)', @epilogue),
		"1: answered, 503 after 1 / $CLEAN", 'a retry that is taken back is not counted');
	$raw->finish;
}
SKIP:
{
	skip 'no shim can be preloaded', 1 unless $has_shim;

	is(run_statements(
			'call()', "send(1, '{1}', '201,delay=2000'), drive_until(1, 1, 'waiting')", 'call()', 'drive()',
			$starve, "send(2, '{2}', 'close'), batch_wait(1, 1)",
			'batch_submit(2, 3), batch_state(2, 2), batch_state(2, 3)', 'batch_stop(2)',
			'batch_wait(2, 2)', 'batch_wait(2, 3)', $feed,
			'batch_end(2), batch_end(1)', @epilogue),
		'token true / token true / 1: answered, 201 after 1 / ready with a deadline|ready / '
		  . "2: no descriptor, 0 after 1 / 3: not sent, 0 after 0 / $CLEAN",
		'and what was sent is not said to be not sent');
}

is(run_statements(
		'batch_cancel_overdue(1)', "SET sw_guest_token.timeout = '100ms'", "send(1, '{1}', 'hang')", 'drive_into_error()',
		'batch_state(1, 1)', 'pg_sleep(0.3)', 'left(batch_wait(1, 1), 12)', 'batch_end(1)', @epilogue),
	"57014 / overdue / 1: timed out / $CLEAN",
	'a request whose deadline is found passed, and then put off, is waited for');

is(run_statements(
		"send(1, '{1}', '201')", "send(2, '{1,2}', '201,delay=300')", 'batch_pending()',
		'batch_wait_for_place(1, 3)', 'batch_wait_for_place(1, 1)', 'left(batch_wait(1, 1), 11), batch_pending()',
		'batch_end(1)', 'batch_end(2)', @epilogue),
	"3 / 2 / 0 / 1: answered|0 / $CLEAN",
	'places are taken by what is on its way, whosever it is');

is(slurp_file($node->logfile) =~ /(terminated by signal|TRAP:)/ ? $1 : '', '', 'no process has crashed');

done_testing();
