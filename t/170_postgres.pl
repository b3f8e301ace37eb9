# What PostgreSQL itself does around a call, as the documents say: which
# statements it logs, when tokens that were issued are lost, and what each time
# limit is for.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use SwTest;
use Test::More;

my $sandbox = start_sandbox();
my $node = start_server('postgres', <<"EOC");
sw_guest_token.base_url = '$sandbox->{url}'
sw_guest_token.project_id = '00000000-0000-4000-8000-000000000000'
sw_guest_token.api_token = 'PTsandbox'
log_statement = none
EOC
my $unfit = "SET sw_guest_token.base_url = '" . $sandbox->script('422') . "'";
my $number = 0;

# Runs CODE with a new refresh token, and tells whether the log then has an error,
# and the token.
sub logged
{
	my ($code, $error) = @_;
	my $token = 'eyJhbGciOiJkaXIifQ.' . ++$number . '.secret';
	my $start = -s $node->logfile;

	$code->($token);
	my $log = substr(slurp_file($node->logfile), $start);
	return 'no error' if $log !~ ($error // qr/ERROR: .*SignalWire rejected the request/);
	return index($log, $token) >= 0 ? 'the token' : 'no token';
}

#
# The log
#

sub literal
{
	my (@settings) = @_;

	return logged(sub { run_session($node, $unfit, @settings, "SELECT * FROM sw_refresh_guest_token('$_[0]')") });
}

is(literal(), 'the token', 'a failed statement is logged, with its literals, by default');
is(literal('SET log_min_error_statement = fatal'), 'no token', 'but not with log_min_error_statement = fatal');
is(literal('SET log_min_error_statement = panic'), 'no token', 'or panic');
is(literal('SET log_min_error_statement = panic', "SET log_statement = 'all'"), 'the token', 'unless log_statement logs it');
is(literal('SET log_min_error_statement = panic', 'SET log_min_duration_statement = 0'), 'no token',
	'log_min_duration_statement does not log what failed');
is( logged(
		sub {
			run_session($node, 'SET log_min_error_statement = panic', 'SET log_min_duration_statement = 0', "SELECT sw_token_header('$_[0]') IS NULL");
		}, qr/LOG:  duration/),
	'the token', 'but what succeeded');

# a session that is terminated
foreach my $level ('fatal', 'panic')
{
	is( logged(
			sub {
				my $session = session($node, "SET log_min_error_statement = $level",
					"SET sw_guest_token.base_url = '" . $sandbox->script('hang') . "'",
					"SELECT * FROM sw_refresh_guest_token('$_[0]')");

				wait_for_call($node);
				$node->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'");
				$session->finish;
			}, qr/FATAL: .*terminating connection/),
		$level eq 'fatal' ? 'the token' : 'no token',
		"the statement of a session that was terminated, log_min_error_statement = $level");
}

# an ordinary role gets what a superuser has stored for it, but cannot set it
$node->safe_psql('postgres', <<'EOQ');
CREATE ROLE app LOGIN;
ALTER ROLE app SET log_min_error_statement = 'panic';
GRANT EXECUTE ON FUNCTION sw_refresh_guest_token TO app;
CREATE TABLE guest (id int PRIMARY KEY, refresh_token text);
CREATE FUNCTION refresh(guest_id int) RETURNS sw_guest_token LANGUAGE plpgsql AS $$
DECLARE
	result sw_guest_token;
BEGIN
	SELECT t.* INTO result FROM guest g, sw_refresh_guest_token(g.refresh_token) t WHERE g.id = guest_id;
	RETURN result;
END
$$;
EOQ
$node->append_conf('postgresql.conf', "sw_guest_token.base_url = '" . $sandbox->script('422') . "'");
$node->restart;
is( logged(sub { $node->psql('postgres', "SELECT * FROM sw_refresh_guest_token('$_[0]')", extra_params => [ '-U', 'app' ]) }),
	'no token', 'a role for which a superuser has set log_min_error_statement = panic');
like(($node->psql('postgres', 'SET log_min_error_statement = error', extra_params => [ '-U', 'app' ]))[2],
	qr/permission denied/, 'the role cannot change that');

# bind parameters
my $directory = PostgreSQL::Test::Utils::tempdir;
append_to_file("$directory/fails", "SELECT * FROM sw_refresh_guest_token(:token);\n");
append_to_file("$directory/succeeds", "SELECT sw_token_header(:token);\n");

sub bound
{
	my ($mode, @settings) = @_;
	my $script = "$directory/" . (grep(/duration/, @settings) ? 'succeeds' : 'fails');

	return logged(
		sub {
			local $ENV{PGOPTIONS} = join ' ', map { "-c $_" } @settings;
			my ($out, $err);
			IPC::Run::run([ $node->installed_command('pgbench'), '-n', '-t', 1, '-M', $mode, '-f', $script,
					'-D', "token=$_[0]", $node->connstr('postgres') ], '>', \$out, '2>', \$err);
		}, $script =~ /succeeds/ ? qr/LOG:  duration/ : undef);
}

SKIP:
{
	skip 'there is no pgbench', 8 unless -x $node->config_data('--bindir') . '/pgbench';
	foreach my $mode ('extended', 'prepared')
	{
		is(bound($mode), 'no token', "$mode: a parameter of a failed statement is not logged");
		is(bound($mode, 'log_parameter_max_length_on_error=-1'), 'the token', "$mode: unless log_parameter_max_length_on_error says so");
	}
	foreach my $setting ('log_statement=all', 'log_min_duration_statement=0')
	{
		is(bound('extended', $setting), 'the token', "$setting logs parameters");
		is(bound('extended', $setting, 'log_parameter_max_length=0'), 'no token', "$setting: log_parameter_max_length=0 keeps it from that");
	}
}

# EXECUTE passes no bind parameters, and a function that looks the token up needs none
is( logged(sub { run_session($node, 'PREPARE r(text) AS SELECT * FROM sw_refresh_guest_token($1)', "EXECUTE r('$_[0]')") }),
	'the token', 'EXECUTE with a literal is logged');
is( logged(sub {
			$node->safe_psql('postgres', "SET log_statement = none; INSERT INTO guest VALUES ($number, '$_[0]')");
			run_session($node, "SELECT * FROM refresh($number)") }),
	'no token', 'a function that finds the token in a table has it in no statement');

# plans that a role has shown to itself contain the values of PL/pgSQL's variables
foreach my $case (
	[ 'SELECT refresh_token INTO token FROM guest WHERE id = guest_id; PERFORM sw_refresh_guest_token(token);', 1 ],
	[ 'UPDATE guest SET refresh_token = (SELECT t.refresh_token FROM sw_refresh_guest_token(refresh_token) t) WHERE id = guest_id;', '' ])
{
	my ($statements, $is_printed) = @$case;

	$number++;
	$node->safe_psql('postgres', <<"EOQ");
SET log_statement = none;
INSERT INTO guest VALUES ($number, 'eyJ');
CREATE OR REPLACE FUNCTION print(guest_id int) RETURNS void LANGUAGE plpgsql AS \$\$
DECLARE
	token text;
BEGIN
	$statements
END \$\$
EOQ
	my $session = run_session($node, "SET sw_guest_token.base_url = '" . $sandbox->script('201') . "'",
		'SET client_min_messages = log', 'SET debug_print_plan = on', "SELECT print($number)");
	is($session->{err} =~ /constvalue \d+ \[ [-0-9 ]*\b101 121 74 /, $is_printed, "debug_print_plan shows a token: $statements");
}

# a statement in PL/pgSQL
foreach my $case (
	[ 'PERFORM sw_refresh_guest_token(TOKEN)', 'default', 'the token' ],
	[ 'PERFORM sw_refresh_guest_token(TOKEN)', 'terse', 'no token' ],
	[ 'DECLARE v text := TOKEN; BEGIN PERFORM sw_refresh_guest_token(v); END', 'default', 'no token' ],
	[ q{EXECUTE format('SELECT sw_refresh_guest_token(%L)', TOKEN)}, 'default', 'the token' ],
	[ q{EXECUTE 'SELECT sw_refresh_guest_token($1)' USING TOKEN}, 'default', 'no token' ])
{
	my ($statement, $verbosity, $expected) = @$case;

	is( logged(
			sub {
				my $text = $statement =~ s/TOKEN/'$_[0]'/r;
				run_session($node, $unfit, 'SET log_min_error_statement = panic', "SET log_error_verbosity = $verbosity", "DO \$\$ BEGIN $text; END \$\$");
			}),
		$expected,
		"$statement, log_error_verbosity = $verbosity");
}

# a violated constraint
$node->safe_psql('postgres', 'CREATE TABLE short (token text CHECK (length(token) < 10), note text)');
my $store = 'INSERT INTO short SELECT refresh_token FROM guest WHERE refresh_token = (SELECT max(refresh_token) FROM guest)';
foreach my $verbosity ('default', 'terse')
{
	is( logged(sub {
				$node->safe_psql('postgres', "SET log_statement = none; INSERT INTO guest VALUES ($number, 'z$_[0]')");
				run_session($node, "SET log_error_verbosity = $verbosity", $store) },
			qr/violates check constraint/),
		$verbosity eq 'terse' ? 'no token' : 'the token',
		"a constraint that fails, log_error_verbosity = $verbosity");
}

# a statement that makes a temporary file
foreach my $level ('error', 'panic')
{
	is( logged(
			sub {
				run_session($node, "SET log_min_error_statement = $level", 'SET log_temp_files = 0', "SET work_mem = '64kB'",
					"SELECT count(*) FROM (SELECT i FROM generate_series(1, 50000) AS i ORDER BY -i OFFSET 0) AS s WHERE sw_token_header('$_[0]') IS NOT NULL");
			}, qr/LOG: .*temporary file/),
		$level eq 'panic' ? 'no token' : 'the token',
		"log_temp_files logs the statement, log_min_error_statement = $level");
}

# a statement that waits for a lock, whether or not it succeeds
sub wait_for_locks
{
	my ($locks) = @_;

	$node->poll_query_until('postgres', "SELECT count(*) > 0 FROM pg_locks WHERE $locks") or die "no lock: $locks";
	return;
}

foreach my $level ('error', 'panic')
{
	is( logged(
			sub {
				my $start = -s $node->logfile;
				my $holder = session($node, 'BEGIN', 'LOCK TABLE short', 'SELECT pg_sleep(1000)');
				wait_for_locks("relation = 'short'::regclass AND mode = 'AccessExclusiveLock'");
				my $waiting = session($node, 'SET log_lock_waits = on', "SET deadlock_timeout = '10ms'", "SET log_min_error_statement = $level",
					"INSERT INTO short SELECT 'short' WHERE sw_token_header('$_[0]') IS NULL");
				$node->wait_for_log(qr/still waiting for/, $start);
				$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(1000)'});
				$holder->finish;
				is($waiting->finish->{err}, '', 'a statement waits for a lock');
			}, qr/LOG: .*still waiting for/),
		$level eq 'panic' ? 'no token' : 'the token',
		"and log_lock_waits logs it, log_min_error_statement = $level");
}

# a deadlock: the log shows the statements of both sessions, also of the one that succeeds
foreach my $verbosity ('default', 'terse')
{
	is( logged(
			sub {
				my $wait = "DO 'BEGIN WHILE (SELECT count(*) = 0 FROM pg_locks WHERE locktype = ''advisory'' AND %s)"
				  . " LOOP PERFORM pg_sleep(0.01); END LOOP; END'";
				my @panic = ("SET log_min_error_statement = 'panic'", "SET log_error_verbosity = $verbosity");
				my $lucky = session($node, @panic, "SET deadlock_timeout = '1h'", 'BEGIN', 'SELECT pg_advisory_xact_lock(1)',
					sprintf($wait, 'objid = 2'),
					"SELECT pg_advisory_xact_lock(2), sw_token_header('$_[0]')");
				wait_for_locks("locktype = 'advisory' AND objid = 1");

				# it looks for a deadlock only once
				my $victim = session($node, @panic, "SET deadlock_timeout = '10ms'", 'BEGIN', 'SELECT pg_advisory_xact_lock(2)',
					sprintf($wait, 'NOT granted'), 'SELECT pg_advisory_xact_lock(1)');
				is(sql_state($victim->finish->{err}), '40P01', 'a deadlock');
				is($lucky->finish->{err}, '', 'of which one session goes on');
			}, qr/ERROR: .*deadlock detected/),
		$verbosity eq 'terse' ? 'no token' : 'the token',
		"whose statement is logged, log_error_verbosity = $verbosity");
}

# a process that is killed, as the kernel does when memory is short
foreach my $verbosity ('default', 'terse')
{
	$node->append_conf('postgresql.conf', "log_error_verbosity = $verbosity\nrestart_after_crash = on");
	$node->reload;
	is( logged(
			sub {
				my $start = -s $node->logfile;
				my $session = session($node, "SET log_min_error_statement = 'panic'", "SET sw_guest_token.base_url = '" . $sandbox->script('hang') . "'",
					"SELECT * FROM sw_refresh_guest_token('$_[0]')");

				wait_for_call($node);
				kill 'KILL', $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE application_name = 'victim'");
				$session->finish;
				$node->wait_for_log(qr/was terminated by signal 9/, $start);
				$node->poll_query_until('postgres', 'SELECT true') or die 'the server does not come back';
			}, qr/LOG: .*was terminated by signal 9/),
		$verbosity eq 'terse' ? 'no token' : 'the token',
		"the statement of a process that was killed, log_error_verbosity = $verbosity");
}

#
# Tokens that are lost
#

$node->append_conf('postgresql.conf', "sw_guest_token.base_url = '$sandbox->{url}'");
$node->restart;
my $batch = batch_of(200);
my $session = run_session($node, "SET work_mem = '64kB'", "SET temp_file_limit = '64kB'", "SELECT count(*) FROM $batch");
is($session->{out} . sql_state($session->{err}), '53400', 'a full temp_file_limit discards the rows of a batch');
cmp_ok($sandbox->attempts, '>', 1, 'of which some were issued');

$sandbox->reset;
$session = run_session($node, "SELECT 1 / (ordinality - 1) FROM $batch");
is($session->{out} . sql_state($session->{err}), '22012', 'and so does an error elsewhere in the query');
is($sandbox->attempts, 200, 'of a batch that was complete');

$node->safe_psql('postgres', <<"EOQ");
CREATE TABLE visitor (id int PRIMARY KEY, addresses uuid[], token text, refresh_token text);
CREATE TRIGGER issue_token BEFORE INSERT OR UPDATE ON visitor FOR EACH ROW
	EXECUTE FUNCTION sw_guest_token_trigger('addresses', 'token', 'refresh_token');
INSERT INTO visitor VALUES (1, '{$ADDRESS}');
EOQ
foreach my $action ([ 'NOTHING', 1 ], [ 'UPDATE SET token = NULL', 2 ], [ "UPDATE SET addresses = '{$ADDRESS}'", 1 ])
{
	$sandbox->reset;
	$node->safe_psql('postgres', "INSERT INTO visitor VALUES (1, '{$ADDRESS}') ON CONFLICT (id) DO $action->[0]");
	is($sandbox->attempts, $action->[1], "tokens issued for a row that exists, ON CONFLICT DO $action->[0]");
}
$node->safe_psql('postgres', <<"EOQ");
CREATE TABLE parted (id int, addresses uuid[], token text, refresh_token text) PARTITION BY RANGE (id);
CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (0) TO (10);
CREATE TABLE parted_high PARTITION OF parted FOR VALUES FROM (10) TO (20);
CREATE TRIGGER issue_token BEFORE INSERT OR UPDATE ON parted FOR EACH ROW
	EXECUTE FUNCTION sw_guest_token_trigger('addresses', 'token', 'refresh_token');
INSERT INTO parted VALUES (1, '{$ADDRESS}');
EOQ
foreach my $move ([ 'id = 11', 1 ], [ 'id = 1, token = NULL', 2 ])
{
	$sandbox->reset;
	$node->safe_psql('postgres', "UPDATE parted SET $move->[0]");
	is($sandbox->attempts, $move->[1], "tokens issued for a row that moves to another partition, SET $move->[0]");
}

#
# Time limits
#

$batch =~ s/200/16/;
$sandbox->reset;
$session = run_session($node, "SET sw_guest_token.base_url = '" . $sandbox->script('hang') . "'",
	"SET sw_guest_token.timeout = '300ms'", 'SET sw_guest_token.max_concurrency = 4',
	"SELECT error_code, count(*) FROM $batch GROUP BY error_code",
	"SET sw_guest_token.timeout = '1h'", "SET statement_timeout = '100ms'", "SELECT count(*) FROM $batch");
is($session->{out} . sql_state($session->{err}), "08006|16\n57014",
	'timeout is for each request of a batch, statement_timeout for all of it');
cmp_ok($sandbox->attempts, '>', 4, 'so that more were sent than wait at a time');

done_testing();
