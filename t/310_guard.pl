# What all sessions share: the breaker, its probes, the retry budget, the crowd, the
# roles' budgets, and the statistics.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use SwTest;
use Test::More;
use Time::HiRes qw(usleep);

my $sandbox = start_sandbox();
my $node = start_server('guard', "sw_guest_token.breaker = on\nrestart_after_crash = on\nsw_guest_token.max_retries = 0\n");
use_sandbox($node, $sandbox);

my $tests = 0;
my @files = make_certificate(PostgreSQL::Test::Utils::tempdir);
my $use_certificate = "SET sw_guest_token.ca_file = '$files[0]'";
my $url;

# The server has places for 16 targets; a restart frees them.
sub make_room
{
	$node->restart if $tests++ && $tests % 12 == 0;
	return;
}

sub use_url
{
	make_room();
	($url) = @_;
	return;
}

# The server must not be started while this process runs, because it would inherit the pipe
# whose end stops it.
sub use_raw
{
	make_room();
	my $raw = start_raw(@_);
	$url = $raw->{url};
	return $raw;
}

# A script with an id of its own is a target of its own.
sub use_script
{
	my ($script) = @_;

	use_url($sandbox->script(join '-then-', map { "$_,id=$tests" } split /-then-/, $script));
	$sandbox->reset;
	return;
}

# Runs statements in a session of their own.
sub run_sql
{
	return run_session($node, "SET sw_guest_token.base_url = '$url'", @_);
}

sub calls
{
	my ($n, @settings) = @_;

	return run_sql(@settings, ($ONE) x $n);
}

# What becomes of a batch of N.
sub outcomes_of
{
	return "SELECT coalesce(error_code, 'token') FROM " . batch_of($_[0]) . ' ORDER BY 1';
}

sub stat_of
{
	my ($column) = @_;

	return $node->safe_psql('postgres',
		"SELECT $column FROM sw_guest_token_stat WHERE target = left('$url', 255)");
}

sub wait_for_probe
{
	$node->poll_query_until('postgres',
		"SELECT next_probe <= now() FROM sw_guest_token_stat WHERE target = left('$url', 255)")
	  or die 'no probe becomes due';
	return;
}

sub wait_for_stat
{
	my ($condition) = @_;

	$node->poll_query_until('postgres',
		"SELECT $condition FROM sw_guest_token_stat WHERE target = left('$url', 255)")
	  or die "not so: $condition";
	return;
}

# The same within a session, as a statement.
sub poll_stat
{
	my ($condition) = @_;

	return <<"EOQ";
DO \$\$
BEGIN
	WHILE (SELECT NOT ($condition) FROM sw_guest_token_stat WHERE target = left('$url', 255)) LOOP
		PERFORM pg_sleep(0.01);
	END LOOP;
END
\$\$
EOQ
}

sub repeated
{
	my ($n, $script) = @_;

	return join '-then-', ($script) x $n;
}

#
# Opening
#

my $log = -s $node->logfile;

use_script('503');
my $session = calls(6);
is(sql_state($session->{err}), join(' ', ('58000') x 6), 'six calls fail');
like($session->{err}, qr/(?:.*failed to process){5}.*requests to SignalWire are suspended/s,
	'the sixth because requests are suspended');
like($session->{err},
	qr/suspended\nDETAIL:  The last status was 503\.  The next probe is due in \d\.\d s\.\nHINT:  Try again later\./,
	'which says why, and for how long');
is($sandbox->attempts, 5, 'and is not sent');
is(stat_of("state || (next_probe > now() - interval '1 minute') || opened || (last_opened > stats_reset)"),
	'opentrue1true', 'the view tells');
my $logged = slurp_file($node->logfile, $log);
like($logged,
	qr/LOG:  requests to SignalWire are suspended\n.*DETAIL:  The target is \Q$url\E\.  The last status was 503\.\n/,
	'and so does the log');
unlike($logged, qr/suspended\n.*DETAIL.*\n.*STATEMENT/, 'without the statement');

use_script('429');
$session = calls(11);
is(sql_state($session->{err}), join(' ', ('53400') x 11), 'a 429 is half a failure');
is($sandbox->attempts, 10, 'so that ten open');
like($session->{err}, qr/suspended\nDETAIL:  The last status was 429\./, 'with the SQLSTATE of a 429');

use_script('429,retry-after=30');
calls(10);
is(stat_of("next_probe BETWEEN now() + interval '15 s' AND now() + interval '31 s'"),
	't', 'what 429s opened stays open for Retry-After');
use_script('429,retry-after=4000');
calls(10);
is(stat_of("next_probe BETWEEN now() + interval '30 s' AND now() + interval '61 s'"),
	't', 'for a minute at most');
use_script(repeated(15, '429,retry-after=30') . '-then-429,retry-after=1,delay=500');
run_sql('SELECT count(*) FROM ' . batch_of(16));
is(stat_of("next_probe > now() + interval '15 s'"), 't', 'and if several ask, the longest counts');
use_script('503,retry-after=30');
calls(5);
is(stat_of("next_probe < now() + interval '2 s'"), 't', 'a 503 does not ask for that');

use_script('close');
calls(5);
is(stat_of('state'), 'open', 'connections that break open it');

use_url('http://127.0.0.1:1');
calls(6);
is(stat_of("state || ' ' || last_error"), 'open 08001', 'and so do refused ones, which remain the last error');

# outcomes that say nothing about the API
use_script(repeated(12, '500'));
calls(12);
is($sandbox->attempts . stat_of('state'), '12closed', 'a 500 is no failure');
use_script('hang');
calls(6, "SET sw_guest_token.timeout = '50ms'");
is(stat_of('timed_out || state'), '6closed', 'nor is a time limit that is short');
calls(6, "SET statement_timeout = '50ms'");
is(stat_of('cancelled || state || requests'), '6closed12', 'nor a cancel, though what was sent is counted');
use_script(repeated(4, '503') . '-then-422-then-' . repeated(4, '503'));
calls(9);
is($sandbox->attempts . stat_of('state'), '9closed', 'any other answer clears the points');
use_script(repeated(4, '503') . '-then-500-then-503');
calls(7);
is($sandbox->attempts . stat_of('state'), '6open', 'a 500 does not');
use_script(repeated(5, '522') . '-then-522-then-201');
calls(5);
wait_for_probe();
run_sql($ONE);
is($sandbox->attempts . stat_of('opened || state'), '61open', 'a gateway\'s own status is a failure, too');

# the rest of a batch waits for its probe
my $ahead = 'SET sw_guest_token.read_ahead = on';
my $row_by_row = "SELECT coalesce(error_code, 'token') FROM generate_series(1, 20) i, "
  . "sw_try_create_guest_token(ARRAY[lpad(i::text, 32, '0')::uuid])";
foreach ([ 'a batch', outcomes_of(20) ], [ 'reading ahead', $row_by_row ])
{
	my ($name, $query) = @$_;

	use_script(repeated(6, '503') . '-then-201,delay=200-then-201');
	calls(5);
	wait_for_probe();
	is(run_sql($ahead, $query)->{out}, "58000\n" x 20, "$name: a probe that fails, fails all, ...");
	is($sandbox->attempts, 6, '... and is the only request');
	wait_for_probe();
	is(run_sql($ahead, $query)->{out}, "token\n" x 20, "$name: one that is answered lets the others go");
	is($sandbox->attempts . stat_of('requests'), '2626', 'once each');
}
use_script(repeated(5, '503') . '-then-hang-then-201');
calls(5);
wait_for_probe();
my $victim = session($node, "SET sw_guest_token.base_url = '$url'", "SET sw_guest_token.timeout = '1h'", outcomes_of(20));
$sandbox->journal(6);
calls(0, 'SELECT FROM sw_guest_token_check()');
wait_for_stat('issued = 19');
is(stat_of('state || sessions'), 'closed1', 'they also go if somebody else finds out that the API works');
$node->safe_psql('postgres',
	"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'");
$victim->finish;
use_script(repeated(5, '503') . '-then-hang');
calls(5);
wait_for_probe();
is(run_sql(outcomes_of(16))->{out}, "08006\n" . "58000\n" x 15, 'nor does it make another one, ...');
wait_for_probe();
$session = run_sql('SET sw_guest_token.max_concurrency = 2', outcomes_of(60));
like($session->{out}, qr/^(08006\n){1,2}(58000\n){58,59}$/, '... or wait for it');

#
# Silence
#

use_script('hang');
$session = run_sql(outcomes_of(20));
is($session->{out}, ("08006\n" x 16) . ("58000\n" x 4),
	'silence opens it, and what waits gives up; the rest of a batch is rows');
is(stat_of('timed_out || state || suspended'), '16open4', 'which count as timed out');
is($sandbox->attempts, 16, 'and what was not on its way is not sent');
use_script('hang');
$session = run_sql($ONE);
like($session->{err},
	qr/ERROR:  08006: request to SignalWire timed out\nDETAIL:  No session has had an answer for a while, and requests are suspended\./,
	'silence counts each time that it lasts long enough, so that one call is enough');

# answers to other sessions end a silence
use_script(repeated(4, 'hang') . '-then-201');
my $waiting = session($node, "SET sw_guest_token.base_url = '$url'", "SET sw_guest_token.timeout = '4s'",
	outcomes_of(4));
$sandbox->journal(4);
run_sql(map { ($ONE, 'SELECT pg_sleep(0.1)') } 1 .. 45);
$waiting->finish;
is($waiting->{out} . stat_of('opened || state'), ("08006\n" x 4) . '0closed',
	'as long as anybody gets answers there is no silence');
is(stat_of('timed_out'), 4, 'and those who wait go on waiting');

# after answers that took long, time limits need not be as long as S, which is 2.7 s here
use_script('201,delay=900-then-hang');
$session = run_sql($ONE, "SET sw_guest_token.timeout = '2s'", outcomes_of(5));
is($session->{out} . stat_of('opened || state'), "token true\n" . ("08006\n" x 5) . '1open', 'time limits that run out without any answer count');

my $raw = use_raw({ '*' => 'mute', handshake => 0.1 }, @files);
for (1 .. 5)
{
	run_sql($use_certificate, "SET sw_guest_token.timeout = '1s'", outcomes_of(5));
	last if stat_of('opened');
}
is(stat_of('opened'), 1, 'even if connecting has used some of a second');
$raw->finish;

# what comes quickly without a token says little about tokens
use_script('201,delay=1500-then-' . repeated(40, '422') . '-then-' . repeated(5, '201,delay=1500'));
calls(41);
$session = run_sql(outcomes_of(5));
is($session->{out} . stat_of('opened || state'), ("token\n" x 5) . '0closed', 'refusals that come quickly do not make tokens look late');
use_script('422,delay=2000-then-201-then-hang');
calls(2);
is(run_sql("SET statement_timeout = '5s'", outcomes_of(5))->{out}, "08006\n" x 5, 'nor does one that comes slowly make silence look short');

# A call, and then a batch of N requests in a process that is stopped for SECONDS once they
# have been sent.
sub run_stopped
{
	my ($n, $seconds) = @_;
	my $session = session($node, "SET sw_guest_token.base_url = '$url'", $ONE, 'SELECT pg_backend_pid()', outcomes_of($n));
	my ($pid) = $session->wait_for(qr/^(\d+)\n/m);

	$sandbox->journal($n + 1);
	stop_process($pid, $seconds);
	return $session->finish;
}

# nor does the time count in which the process was stopped; S is 1.8 s here, or whatever a
# slow machine makes of that, but hardly between the stop and the answers
use_script('201,delay=600-then-' . repeated(8, '201,delay=3600'));
like(run_stopped(8, 3.3)->{out}, qr/^(?:token\n){8}\z/m, 'a process that was stopped has not waited');
is(stat_of('opened || state'), '0closed', 'and suspends nothing');

# an answer that is read late ends the silence of those that are not there yet; a process
# that wakes up late by less than half a second does not know that it was stopped; S is 2.7 s
use_script('201,delay=900-then-201,delay=2300-then-' . repeated(15, '201,delay=3600'));
like(run_stopped(16, 2.95)->{out}, qr/^(?:token\n){16}\z/m, 'requests in flight together all get their answers');
is(stat_of('opened || state'), '0closed', 'and suspend nothing, though the first were read late');

# a response that does not get beyond its headers is no answer, even if the call is cancelled
use_script('drip,ms=1,size=100000');
$waiting = session($node, "SET sw_guest_token.base_url = '$url'", outcomes_of(5));
$session = calls(15, "SET statement_timeout = '700ms'");
like($session->{err}, qr/57014.*are suspended/s, 'calls that are cancelled as they get an answer end no silence');
$waiting->finish;

# nor is the time that a long request takes to arrive
my ($mute, $mute_port) = listen_dumbly();
use_url("http://127.0.0.1:$mute_port");
$session = run_sql("SET sw_guest_token.timeout = '2s'", outcomes_of(8) =~ s/NULL, NULL, NULL/NULL, repeat(chr(1), 65536), repeat(chr(1), 65536)/r);
is($session->{out} . stat_of('opened || state'), ("08006\n" x 8) . '0closed', 'long requests that do not arrive suspend nothing');

# connecting may take longer than answering
$raw = use_raw({ '*' => 'none', times => 0, handshake => 1.5 }, @files);
$session = run_sql($use_certificate, outcomes_of(8));
is($session->{out} . stat_of('opened || state'), ("token\n" x 8) . '0closed', 'a slow handshake is no silence');
$raw->finish;
$raw = use_raw({ '*' => 'none', times => 0, hang => -1 }, @files);
$session = run_sql($use_certificate, "SET sw_guest_token.connect_timeout = '4s'", 'SET sw_guest_token.max_retries = 1', outcomes_of(8));
is($session->{out} . stat_of('opened || state'), ("token\n" x 8) . '0closed', 'requests that wait for one connection count as one');
$raw->finish;

# refused requests suspend nothing while others are answered
$raw = use_raw({ '*' => 'refused_stream', spare => 1 }, @files);
$session = run_sql($use_certificate, "SET sw_guest_token.timeout = '300ms'", $ONE,
	'SET sw_guest_token.max_concurrency = 20', outcomes_of(20));
is($session->{out} . stat_of('opened || state'), "token true\n" . ("08006\n" x 20) . '0closed', 'requests that a server has no room for');
$session = calls(8, $use_certificate);
is(stat_of('opened || state'), '1open', 'a server that goes on refusing does not work');
$raw->finish;

# what comes over one connection comes from one host
$raw = use_raw({ '*' => 'none', times => 0, ill => 1 }, @files);
$session = run_sql($use_certificate, 'SET sw_guest_token.max_retries = 1', outcomes_of(40));
is($session->{out} . stat_of('opened || state'), ("token\n" x 40) . '0closed', 'of several 503s over one HTTP/2 connection one counts');
$raw->finish;
$raw = use_raw({ '*' => 'rst_in_body', times => 16 }, @files);
$session = run_sql($use_certificate, 'SET sw_guest_token.max_retries = 1', outcomes_of(40));
is($session->{out} . stat_of('opened || state'), ("token\n" x 40) . '0closed', 'and so it is with requests that break');
$raw->finish;
$raw = use_raw({ '*' => 'none', times => 0, ill => 1000 }, @files);
$session = run_sql($use_certificate, outcomes_of(100));
is(stat_of('opened || state || (requests <= 80)'), '1opentrue', 'but those over five do');
$raw->finish;

#
# Probes
#

use_script(repeated(8, '503') . '-then-201');
calls(5);
wait_for_probe();
$session = calls(2, 'SET sw_guest_token.max_retries = 2');
is($sandbox->attempts, 6, 'one probe goes when it is due, without retries');
like($session->{err}, qr/failed to process.*are suspended/s, 'and the next call waits for another');
wait_for_probe();
calls(1);
is(stat_of('state'), 'open', 'a probe that fails changes nothing');
wait_for_probe();
$session = run_sql('SET client_min_messages = debug1', "SELECT set_config('a.probe', clock_timestamp()::text, false) = ''", $ONE,
	"SELECT next_probe >= current_setting('a.probe')::timestamptz + interval '900 ms' FROM sw_guest_token_stat WHERE target = left('$url', 255)");
is($session->{out}, "f\nt\n", 'nor does one that is reported make others go sooner');
wait_for_probe();
$log = -s $node->logfile;
$session = calls(2);
is($session->{out}, "token true\n" x 2, 'one that is answered closes the breaker');
like(slurp_file($node->logfile, $log),
	qr/LOG:  requests to SignalWire are resumed\n.*DETAIL:  The target is \Q$url\E\.  They were suspended for \d+\.\d s\.\n/,
	'which the log tells');

# it may be the old connections that do not work
use_script(repeated(10, '429') . '-then-201');
$session = run_sql(($ONE) x 10, 'SELECT pg_sleep(1.3)', $ONE, $ONE);
is($session->{out} . $sandbox->journal->{connections}, "\ntoken true\ntoken true\n2", 'a probe uses a connection of its own');

# ... and a session whose probe has success does not return to them; the server forgets its
# first connection, and five requests of another session fail
my $token = raw_response('201 Created', $PAIR);
$raw = use_raw({
	x => [
		{ bytes => $token, end => 'keep' },
		({ bytes => raw_response('503 No', ''), end => 'next' }) x 5,
		({ bytes => $token, end => 'next' }) x 2 ] });
$url .= '/x';
$waiting = session($node, "SET sw_guest_token.base_url = '$url'", $ONE, <<"EOQ", ($ONE) x 2);
DO \$\$
BEGIN
	WHILE (SELECT next_probe > clock_timestamp() IS NOT FALSE FROM sw_guest_token_stat WHERE target = '$url') LOOP
		PERFORM pg_sleep(0.1);
	END LOOP;
	PERFORM pg_sleep(2);	-- libcurl counts in seconds
END
\$\$
EOQ
$waiting->wait_for(qr/^(token true)\n/);
calls(5);
$waiting->finish;
is($waiting->{out}, "token true\n" x 3, 'nor do later calls use the old ones');
$raw->finish;

# ... nor do those of other sessions
$raw = use_raw({
	x => [
		{ bytes => $token, end => 'keep' },
		({ bytes => '', end => 'keep' }) x 5,
		({ bytes => $token, end => 'next' }) x 2 ] });
$url .= '/x';
$waiting = session($node, "SET sw_guest_token.base_url = '$url'", $ONE, <<"EOQ", $ONE);
DO \$\$
BEGIN
	WHILE (SELECT opened = 0 OR state = 'open' FROM sw_guest_token_stat WHERE target = '$url') LOOP
		PERFORM pg_sleep(0.1);
	END LOOP;
END
\$\$
EOQ
$waiting->wait_for(qr/^(token true)\n/);
sleep 2;						# libcurl counts in seconds
run_sql(outcomes_of(5));
wait_for_probe();
calls(1);
$waiting->finish;
is($waiting->{out}, "token true\n" x 2, 'nor do those of other sessions, if it was silence');
$raw->finish;

# a probe that dies
use_script(repeated(5, '503') . '-then-hang-then-201');
calls(5);
wait_for_probe();
$victim = session($node, "SET sw_guest_token.base_url = '$url'", $ONE);
wait_for_call($node);
$node->safe_psql('postgres',
	"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'");
$victim->finish;
my $out = '';
for (1 .. 1000)
{
	last if ($out = calls(1)->{out});
}
is($out, "token true\n", 'a prober that was killed leaves the next to others');

# cancelling a probe takes back nothing that another answer said
use_script(repeated(5, '503') . '-then-hang-then-429,retry-after=30');
calls(5);
wait_for_probe();
$victim = session($node, "SET sw_guest_token.base_url = '$url'", $ONE);
wait_for_call($node);
run_sql('SELECT FROM sw_guest_token_check()');
$node->safe_psql('postgres',
	"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'");
$victim->finish;
is(stat_of("next_probe > now() + interval '20 s'"), 't', 'a probe that is cancelled does not bring the next one forward');

# the next probe is due a second after the last, whatever becomes of that: neither are
# others kept from probing, nor does the API get more probes from callers with little time
use_script(repeated(5, '503') . '-then-hang');
calls(5);
my $locking = "WITH w AS (INSERT INTO w VALUES (1) RETURNING n) SELECT token FROM w, sw_create_guest_token('{$ADDRESS}')";
foreach (
	[ 'has little time', "SET sw_guest_token.timeout = '300ms'", $ONE ],
	[ 'is cancelled', "SET statement_timeout = '300ms'", $ONE ],
	[ 'may not take long to connect', "SET sw_guest_token.connect_timeout = '500ms'", $ONE ],
	[ 'holds locks', "SET sw_guest_token.timeout = '300ms'", 'CREATE TEMP TABLE w (n int)', $locking ])
{
	my ($name, @statements) = @$_;
	my $n = $sandbox->attempts;

	wait_for_probe();
	$session = run_sql("SELECT set_config('a.probe', clock_timestamp()::text, false) = ''", @statements, <<"EOQ");
SELECT next_probe - current_setting('a.probe')::timestamptz > '900 ms' AND next_probe - clock_timestamp() < '1010 ms'
FROM sw_guest_token_stat WHERE target = left('$url', 255)
EOQ
	like($session->{out}, qr/^t\n\z/m, "a second after a probe that $name comes the next");
	is($sandbox->attempts, $n + 1, 'the probe was sent');
}
wait_for_probe();
$waiting = session($node, "SET sw_guest_token.base_url = '$url'", 'SET sw_guest_token.read_ahead = on',
	"SELECT t.error_code, CASE n WHEN 1 THEN pg_sleep(0.01) WHEN 2 THEN pg_sleep(600) END "
	  . "FROM generate_series(1, 3) n, sw_try_create_guest_token(CASE n WHEN 3 THEN '{$ADDRESS}'::uuid[] ELSE '{}' END) t");
$sandbox->journal(10);
is(stat_of("next_probe > (SELECT query_start FROM pg_stat_activity WHERE application_name = 'victim') + interval '900 ms'"),
	't', 'nor do more come if nobody waits for the answer');
$node->safe_psql('postgres',
	"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'");
$waiting->finish;

# whoever has probed without success lets others go first, or else a job that repeats a
# request that the API cannot process would take every probe
$node->safe_psql('postgres', <<"EOS");
CREATE ROLE hasty LOGIN;
CREATE ROLE patient LOGIN;
GRANT EXECUTE ON FUNCTION sw_create_guest_token TO hasty, patient;
EOS

# A call as a role.
sub call_as
{
	my ($role, @settings) = @_;
	my $out;

	$node->safe_psql('postgres', "ALTER ROLE $role SET sw_guest_token.base_url = '$url'");
	$node->psql('postgres', join('; ', @settings, $ONE), stdout => \$out, extra_params => [ '-U', $role ]);
	return $out;
}

# A statement that tells how many seconds longer than others the session must wait for its
# next call, which is suspended.
sub tell_extra_wait
{
	return <<"EOQ";
DO \$\$
DECLARE
	v_called timestamptz = clock_timestamp();
	v_detail text;
BEGIN
	PERFORM sw_create_guest_token('{$ADDRESS}');
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS v_detail = PG_EXCEPTION_DETAIL;
	RAISE NOTICE 'extra wait %', (SELECT substring(v_detail FROM 'due in ([0-9.]+) s')::numeric
		- extract(epoch FROM next_probe - v_called) FROM sw_guest_token_stat WHERE target = left('$url', 255));
END
\$\$
EOQ
}

# What a session was told: for whom it waits.
sub waits_for
{
	my ($session) = @_;
	my %delays = (
		'nobody' => 0, 'session' => 0.15, 'two sessions' => 0.3,
		'role' => 0.5, 'role, session' => 0.65, 'two roles' => 1);
	my ($told) = $session->{err} =~ /extra wait (\S+)/ or return $session->{err};
	my ($nearest) = sort { abs($delays{$a} - $told) <=> abs($delays{$b} - $told) } keys %delays;

	return $nearest;
}

# extra_wait(SQL...): what that is after these statements.
sub extra_wait
{
	return waits_for(run_sql(@_, 'SET statement_timeout = 0', tell_extra_wait()));
}

use_script(repeated(7, '503') . '-then-201');
calls(5);
wait_for_probe();
is(extra_wait($ONE), 'nobody', 'a session that is alone waits no longer than others would');
calls(1);
wait_for_probe();
is(extra_wait($ONE), 'two sessions', 'if others were refused, they go first');
is($sandbox->attempts, 7, 'both probes have failed');
foreach my $limit ("SET sw_guest_token.timeout = '1ms'", "SET statement_timeout = '50ms'")
{
	use_script(repeated(5, '503') . '-then-201,delay=500-then-201');
	calls(5);
	call_as('patient');
	wait_for_probe();
	is(extra_wait($limit, $ONE), 'role', "$limit: other roles go first");
	wait_for_probe();
	is(call_as('patient'), 'token true', 'which another role does');
	is(stat_of('state'), 'closed', 'and ends the suspension');
}
use_script(repeated(8, '503'));
calls(5);
call_as('patient');
wait_for_probe();
sleep 6;						# nobody is forgotten so soon
is(extra_wait($ONE), 'role', 'even one that does not call often');
wait_for_probe();
call_as('patient');
wait_for_probe();
is(extra_wait($ONE), 'session', 'but once: now it is another session of the same role');
use_script(repeated(5, '503') . '-then-500-then-500-then-201');
calls(5);
call_as('patient');
wait_for_probe();
is(extra_wait($ONE), 'role', 'a 500 is no success, either');
is(extra_wait(), 'role', "nor is it other sessions' turn");
wait_for_probe();
call_as('hasty');
is($sandbox->attempts, 7, 'another role goes');
call_as('patient');
is(extra_wait(), 'role', 'if that has no success, too, the first role still waits, ...');
wait_for_probe();
is(call_as('patient'), 'token true', '... until somebody has');
use_script(repeated(6, '503') . '-then-201-then-503');
calls(5);
call_as('hasty');
wait_for_probe();
is(extra_wait(outcomes_of(20)), 'role', 'and so does another role, even if a batch was refused meanwhile');
wait_for_probe();
is(call_as('hasty'), 'token true', 'which gets its token');
calls(5);
call_as('hasty');
is(extra_wait(), 'role', 'the role still gives way when requests are suspended again');

# in an outage all lose their probes, and take turns
use_script(repeated(6, '503') . '-then-429,retry-after=30');
calls(5);
wait_for_probe();
call_as('patient');
wait_for_probe();
calls(1);
call_as('patient');
is(extra_wait(), 'role', 'a role whose loss is older goes first');
use_script(repeated(6, '503') . '-then-429,retry-after=30');
calls(5);
wait_for_probe();
$waiting = session($node, "SET sw_guest_token.base_url = '$url'", $ONE, poll_stat('requests >= 7'), $ONE);
wait_for_stat('requests >= 6');
wait_for_probe();
is(extra_wait($ONE, poll_stat('suspended >= 1')), 'session', 'and so does a session');
$waiting->finish;

# ... first the roles, then the sessions of each
$node->safe_psql('postgres', 'GRANT pg_read_all_stats TO patient');
use_script(repeated(6, '503') . '-then-429,retry-after=30');
calls(5);
wait_for_probe();
$node->safe_psql('postgres', "ALTER ROLE patient SET sw_guest_token.base_url = '$url'");
$waiting = session($node, '\connect - patient', $ONE, poll_stat('suspended >= 1'), tell_extra_wait());
wait_for_stat('requests >= 6');
wait_for_probe();
calls(1);
calls(1);
is(waits_for($waiting->finish), 'nobody', 'only a session of the same role goes before a session');

# ... and whoever has lost a probe does so even behind somebody who never comes again
use_script(repeated(6, '503') . '-then-429,retry-after=30');
calls(5);
call_as('hasty');
wait_for_probe();
call_as('patient');
wait_for_probe();
calls(1);
call_as('patient');
is(extra_wait(), 'two roles', 'those who have lost a probe later wait for both');

# ... and need not wait for the lease of a probe out of turn
use_script(repeated(7, '503') . '-then-201');
calls(5);
call_as('patient');
wait_for_probe();
run_sql($ONE, <<"EOQ");
DO \$\$
BEGIN
	PERFORM pg_current_xact_id();
	WHILE (SELECT requests < 7 FROM sw_guest_token_stat WHERE target = left('$url', 255)) LOOP
		PERFORM sw_try_create_guest_token('{$ADDRESS}');
	END LOOP;
END
\$\$
EOQ
is(call_as('patient'), 'token true', 'whoever comes too late for the turn goes at once');

# a session that does something else meanwhile does not make the API look broken
sub busy_after_first
{
	my ($n, $seconds) = @_;

	# the first request goes over the kept-alive connection, and so arrives first;
	# the others are sent while the session waits for it
	return ($ONE, 'SET sw_guest_token.read_ahead = on',
		"SELECT coalesce(t.error_code, 'token'), CASE WHEN i = 1 THEN pg_sleep($seconds) END IS NULL "
		  . "FROM generate_series(1, $n) i, sw_try_create_guest_token(ARRAY[lpad(i::text, 32, '0')::uuid]) t");
}
use_script(repeated(4, '201,delay=900') . '-then-201-then-201,delay=300-then-close,delay=2500');
calls(4);						# so that a slow machine's second is no silence
$session = run_sql(busy_after_first(6, 4));
is($session->{out}, "token true\ntoken|f\n" . "08006|t\n" x 5, 'connections that break while nobody looks');
is(stat_of('failed || state'), '5closed', 'are no failures of the API');
foreach ([ 1, 'closed' ], [ 0, 'open' ])
{
	my ($n_others, $state) = @$_;

	use_script('201-then-201,delay=300-then-' . repeated(5, '503,delay=1500') . '-then-201');
	$victim = session($node, "SET sw_guest_token.base_url = '$url'", busy_after_first(6, 4));
	$sandbox->journal(7);
	sleep 2;					# until they have been answered
	calls($n_others);
	is($victim->finish->{out}, "token true\ntoken|f\n" . "58000|t\n" x 5,
		"statuses that are read late, $n_others good answers since");
	is(stat_of('state'), $state, "... leave it $state");
}
my ($deaf, $deaf_port) = listen_dumbly();
use_url("https://127.0.0.1:$deaf_port");
calls(6, "SET sw_guest_token.connect_timeout = '60ms'");
is(stat_of('timed_out || state'), '6closed', 'nor are connections that take longer than a short limit');
close $deaf;

# nor are requests that time out while others get their answers
use_script(repeated(4, '201,delay=900') . '-then-' . repeated(6, 'hang') . '-then-201');
calls(4);						# as above
$victim = session($node, "SET sw_guest_token.base_url = '$url'", "SET sw_guest_token.timeout = '4s'",
	'SELECT count(error_code) FROM ' . batch_of(6));
my $n_failed = 0;
$sandbox->journal(10);
while (stat_of('timed_out') < 6)
{
	calls(1)->{out} eq "token true\n" or $n_failed++;
}
$victim->finish;
is($n_failed . stat_of('state'), '0closed', 'what times out while others are answered is no failure of all');

# answers to requests from before the breaker opened do not close it
use_script('201,delay=900-then-' . repeated(6, '503'));
$victim = session($node, "SET sw_guest_token.base_url = '$url'", $ONE);
$sandbox->journal(1);
calls(5);
is(stat_of('state'), 'open', 'a call is on its way as the breaker opens');
$victim->finish;
is($victim->{out} . stat_of('state'), "token true\nopen", 'and its answer does not close it');

# every eighth probe waits for its whole timeout
use_script(repeated(12, '503') . '-then-hang');
calls(5);
for (1 .. 7)
{
	wait_for_probe();
	calls(1);
}
wait_for_probe();
$session = calls(1, "SET sw_guest_token.timeout = '3s'");
like($session->{err}, qr/"sw_guest_token\.timeout" \(3000 ms\) ran out/, 'the eighth probe is a long one');
is($sandbox->attempts, 13, 'after seven short ones');
wait_for_probe();
$session = calls(1, "SET sw_guest_token.timeout = '3s'");
like($session->{err}, qr/No session has had an answer/, 'the ninth is short');

# ... but not if the caller has less time, ...
use_script(repeated(12, '503') . '-then-hang');
calls(5);
for (1 .. 7)
{
	wait_for_probe();
	calls(1);
}
foreach my $limit ("SET sw_guest_token.timeout = '300ms'", "SET statement_timeout = '300ms'")
{
	wait_for_probe();
	calls(1, $limit);
}
is($sandbox->attempts, 14, 'callers with less time probe, too');
wait_for_probe();
$session = calls(1, "SET sw_guest_token.timeout = '3s'");
like($session->{err}, qr/"sw_guest_token\.timeout" \(3000 ms\) ran out/, 'but do not use up the long probe');

# ... and after one that had no success, whoever has the most time has the next
use_script(repeated(12, '503') . '-then-hang-then-' . repeated(7, '503') . '-then-hang');
calls(5);
foreach my $timeout (('3s') x 7, '1500ms', ('3s') x 7, '1500ms')
{
	wait_for_probe();
	$session = calls(1, "SET sw_guest_token.timeout = '$timeout'");
}
is($sandbox->attempts, 21, 'fifteen probes later');
like($session->{err}, qr/No session has had an answer/, 'a caller with less time has no second long probe');
wait_for_probe();
$session = calls(1, "SET sw_guest_token.timeout = '3s'");
like($session->{err}, qr/"sw_guest_token\.timeout" \(3000 ms\) ran out/, 'but the one with the most time has');

# ... nor always that of the same session
use_script(repeated(12, '503') . '-then-hang-then-' . repeated(7, '503') . '-then-hang');
calls(5);
my @taking_turns = map {
	session($node, "SET sw_guest_token.base_url = '$url'", "SET sw_guest_token.timeout = '1200ms'", <<"EOQ")
DO \$\$
DECLARE
	v_detail text;
BEGIN
	WHILE (SELECT requests < 22 FROM sw_guest_token_stat WHERE target = left('$url', 255)) LOOP
		BEGIN
			PERFORM sw_create_guest_token('{$ADDRESS}');
		EXCEPTION WHEN connection_failure THEN
			GET STACKED DIAGNOSTICS v_detail = PG_EXCEPTION_DETAIL;
			RAISE NOTICE '% %', SQLERRM, v_detail;
		WHEN system_error THEN
			PERFORM pg_sleep(0.01);
		END;
	END LOOP;
END
\$\$
EOQ
} 1 .. 2;
is(join(' ', map { scalar(() = $_->finish->{err} =~ /1200 ms/g) } @taking_turns),
	'1 1', 'sessions that take turns share the long probes, too');

# but not while the last one that does so may still be waiting; nor does that one keep
# others from probing, though it is all that may wait
sub set_max_sessions
{
	my ($n) = @_;

	$node->append_conf('postgresql.conf', "sw_guest_token.max_sessions = $n");
	$node->reload;
	$node->poll_query_until('postgres', "SELECT current_setting('sw_guest_token.max_sessions') = '$n'");
	return;
}
set_max_sessions(1);
use_script(repeated(12, '503') . '-then-hang-then-' . repeated(7, '503') . '-then-hang');
calls(5);
for (1 .. 7)
{
	wait_for_probe();
	calls(1);
}
wait_for_probe();
$waiting = session($node, "SET sw_guest_token.base_url = '$url'", "SET sw_guest_token.timeout = '1h'", $ONE);
$sandbox->journal(13);
for (1 .. 7)
{
	wait_for_probe();
	calls(1);
}
wait_for_probe();
$session = calls(1, "SET sw_guest_token.timeout = '3s'");
like($session->{err}, qr/No session has had an answer/, 'sessions with a long timeout do not pile up');
is($sandbox->attempts, 21, 'and others go on probing');
set_max_sessions(16);
$node->safe_psql('postgres',
	"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'");
$waiting->finish;

# ... unless it would hold locks for as long
$node->safe_psql('postgres', 'CREATE TABLE written (n int)');
use_script(repeated(12, '503') . '-then-hang');
calls(5);
for (1 .. 7)
{
	wait_for_probe();
	calls(1);
}
wait_for_probe();
$session = run_sql("SET sw_guest_token.timeout = '3s'",
	"WITH w AS (INSERT INTO written VALUES (1) RETURNING n) SELECT token FROM w, sw_create_guest_token('{$ADDRESS}')");
like($session->{err}, qr/No session has had an answer/, 'one that has written is short all the same');
wait_for_probe();
$session = calls(1, "SET sw_guest_token.timeout = '3s'");
like($session->{err}, qr/"sw_guest_token\.timeout" \(3000 ms\) ran out/, 'the next that has not is long');

#
# The doctor
#

use_script(repeated(6, '503') . '-then-422');
my $check = "SELECT step, ok FROM sw_guest_token_check() WHERE step IN ('authorize', 'guard')";
like(calls(0, $check)->{out}, qr/^authorize\|f\nguard\|t\n$/, 'the doctor sees that the breaker is closed');
calls(4);
is(stat_of('state'), 'open', 'its own request counts');
like(calls(0, $check)->{out}, qr/^authorize\|f\nguard\|f\n$/, 'and passes the breaker, even if it fails');
like(
	calls(0, "SELECT detail, hint FROM sw_guest_token_check() WHERE step = 'guard'")->{out},
	qr/^Requests are not suspended\.\|$/, 'its success closes it');
use_script(repeated(5, '503') . '-then-422,delay=1600');
calls(5);
like(calls(0, $check)->{out}, qr/^authorize\|t\nguard\|t\n$/, 'even if it takes longer than others would wait');

#
# The retry budget
#

use_script('429-then-' . repeated(24, '429-then-201') . '-then-429');
run_sql('SET sw_guest_token.max_retries = 1', ($ONE) x 14);
is(stat_of("retries || ' ' || retries_denied"), '11 1',
	'ten retries, and one more for ten successes');

my ($dumb, $dumb_port) = listen_dumbly();
use_url("https://127.0.0.1:$dumb_port");
run_sql('SET sw_guest_token.max_retries = 15', "SET sw_guest_token.connect_timeout = '20ms'", $ONE);
is(stat_of("retries || ' ' || retries_denied"), '15 0', 'a time limit of one\'s own spends nothing of it');
close $dumb;

# a retry counts when it is made
use_script('429,retry-after=2');
run_sql('SET sw_guest_token.max_retries = 1', "SET statement_timeout = '500ms'", $ONE);
is(stat_of("retries || ' ' || retries_denied"), '0 0', 'a call that is cancelled in its pause has made no retry');
use_script('429,retry-after=2-then-503');
my $paused = session($node, "SET sw_guest_token.base_url = '$url'", 'SET sw_guest_token.max_retries = 1', $ONE);
$sandbox->journal(1);
calls(5);
is(sql_state($paused->finish->{err}), '53400', 'one that is suspended in its pause ends with what came before');
is(stat_of("retries || ' ' || retries_denied"), '0 1', 'and the retry counts as denied');

use_script('503');
calls(7);
is(stat_of('state || suspended'), 'open2', 'requests are suspended');
$node->append_conf('postgresql.conf', 'sw_guest_token.breaker = off');
$node->reload;
$node->poll_query_until('postgres', "SELECT NOT current_setting('sw_guest_token.breaker')::bool");
is(stat_of('state'), 'closed', 'breaker = off: they are no longer');
is(calls(0, "SELECT ok FROM sw_guest_token_check() WHERE step = 'guard'")->{out}, "t\n", 'and the doctor says so');
use_script('503');
$session = run_sql('SET sw_guest_token.max_retries = 2', ($ONE) x 8);
is($sandbox->attempts . stat_of('state'), '24closed', 'breaker = off: neither breaker nor budget');

# a pause is distinguished from waiting for an answer
use_script('503,retry-after=2-then-201');
my $pausing = session($node, "SET sw_guest_token.base_url = '$url'", 'SET sw_guest_token.max_retries = 1', $ONE);
ok( $node->poll_query_until('postgres',
		"SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'victim' AND wait_event = '"
		  . ($node->pg_version >= 17 ? 'SwGuestTokenPause' : 'Extension') . "'"),
	'pauses have a wait event of their own');
$pausing->finish;

#
# The crowd
#

set_max_sessions(1);
use_script('201-then-201,delay=300-then-201,delay=400-then-hang-then-201');
run_sql(busy_after_first(2, 1.5));
$victim = session($node, "SET sw_guest_token.base_url = '$url'", $ONE);
$sandbox->journal(4);
is(calls(1)->{out}, "token true\n",
	'another session may call as long as none is late, even if an answer was there long before it was read');
do { $session = calls(1) } until $session->{err};
is(sql_state($session->{err}), '53400', 'it may not when one is');
like($session->{err},
	qr/too many sessions wait for SignalWire\nDETAIL:  SignalWire is slow, and "sw_guest_token\.max_sessions" \(1\) sessions wait for it\.\nHINT:  Try again later\./,
	'which says why');
is(calls(0, "SELECT ok, detail FROM sw_guest_token_check() WHERE step = 'guard'")->{out},
	qq{f|SignalWire is slow, and "sw_guest_token.max_sessions" (1) sessions wait for it.\n}, 'and so does the doctor');
is(run_sql(outcomes_of(2))->{out}, "53400\n" x 2, 'a batch has rows');
$node->safe_psql('postgres',
	"CREATE FUNCTION pause(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM pg_sleep(0.005) WHERE i = 3; RETURN i; END'");
is( run_sql('SET sw_guest_token.read_ahead = on',
		'SELECT t.error_code FROM (SELECT pause(i) AS i FROM generate_series(1, 3) i OFFSET 0) q, '
		  . "sw_try_create_guest_token(ARRAY[lpad(q.i::text, 32, '0')::uuid]) t")->{out},
	"53400\n" x 3, 'and so has a query that reads ahead, even if it computes something between its calls');
is(stat_of('sessions || state || crowded'), '1closed6', 'the view counts');
$node->safe_psql('postgres',
	"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'");
$victim->finish;
is(stat_of('sessions || state || cancelled'), '0closed1', 'and forgets who was cancelled');
is(calls(1)->{out}, "token true\n", 'who makes place');

# the doctor keeps nobody out
use_script('hang-then-201');
$waiting = session($node, "SET sw_guest_token.base_url = '$url'", "SET sw_guest_token.timeout = '1h'", 'SELECT FROM sw_guest_token_check()');
$sandbox->journal(1);
is(run_sql(map { ($ONE, 'SELECT pg_sleep(0.1)') } 1 .. 15)->{out}, "token true\n\n" x 15, 'while the doctor waits, others may call');
$node->safe_psql('postgres',
	"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'");
$waiting->finish;

# a session that is inside a call stays inside, even if something interrupts the wait,
# or an element is invalid (the breaker is still off)
use_script('hang-then-hang-then-201');
$victim = session($node, "SET sw_guest_token.base_url = '$url'", 'SET sw_guest_token.max_concurrency = 1',
	"SET sw_guest_token.timeout = '4s'", outcomes_of(1) =~ s/(array_fill\(.*?'\{1\}'\))/$1 || NULL::sw_guest_token_request || $1/r =~ s/1$/ordinality/r);
$sandbox->journal(1);
my $late = session($node, "SET application_name = 'late'", "SET sw_guest_token.base_url = '$url'", $ONE);
$sandbox->journal(2);
do { $session = calls(1) } until $session->{err};
$log = -s $node->logfile;
$node->safe_psql('postgres',
	"SELECT pg_log_backend_memory_contexts(pid) FROM pg_stat_activity WHERE application_name = 'victim'");
$node->wait_for_log(qr/logging memory contexts of PID/, $log);
is($victim->finish->{out}, "08006\n22004\ntoken\n", 'a batch that is under way goes on, although an interrupt comes');
$node->safe_psql('postgres', "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'late'");
$late->finish;

# a session does not wait for the API while its client does not read the messages of a
# parallel worker
use_script('hang');
my $go = PostgreSQL::Test::Utils::tempdir . '/go';
$node->safe_psql('postgres', <<"EOS");
CREATE TABLE two AS SELECT i FROM generate_series(1, 2) i;
ALTER TABLE two SET (parallel_workers = 2);
CREATE FUNCTION noisy(i int) RETURNS text LANGUAGE plpgsql VOLATILE PARALLEL SAFE AS \$\$
BEGIN
	IF i = 2 THEN
		WHILE (pg_stat_file('$go', true)).size IS NULL LOOP
			PERFORM pg_sleep(0.01);
		END LOOP;
		-- psql prints one at a time, into a pipe that nobody reads
		FOR j IN 1 .. 50 LOOP
			RAISE NOTICE '%', repeat('x', 100000);
		END LOOP;
	END IF;
	-- so long that the worker does not keep it until there is more
	RETURN repeat('x', 20000);
END \$\$;
EOS
$victim = session($node, "SET sw_guest_token.base_url = '$url'", 'SET parallel_setup_cost = 0', 'SET parallel_tuple_cost = 0',
	'SET min_parallel_table_scan_size = 0', 'SET parallel_leader_participation = off',
	"SELECT length(q.x), sw_create_guest_token('{$ADDRESS}') FROM (SELECT noisy(i) AS x FROM two OFFSET 0) q");
$sandbox->journal(1);
is(stat_of('sessions'), 1, 'a call is made as a worker runs');
append_to_file($go, '');
$node->poll_query_until('postgres',
	"SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'victim' AND wait_event = 'ClientWrite' AND leader_pid IS NULL")
  or die 'the client reads everything';
is(stat_of("sessions || ' ' || cancelled"), '0 0', 'and does not count while its client does not read');
$node->safe_psql('postgres', "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim' AND leader_pid IS NULL");
is(sql_state($victim->finish->{err}), '57014', 'until it is cancelled');

# a failed transaction waits for nothing, however long its client takes
foreach my $begin ('BEGIN', 'BEGIN; SAVEPOINT a')
{
	my $rolled_back = PostgreSQL::Test::Utils::tempdir . '/rolled_back';

	use_script('hang');
	$victim = session($node, "SET sw_guest_token.base_url = '$url'", $begin, $ONE, "\\! while ! test -e $rolled_back; do sleep 0.1; done");
	$sandbox->journal(1);
	is(stat_of('sessions'), 1, "$begin: a call is under way");
	$node->safe_psql('postgres',
		"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'");
	$node->poll_query_until('postgres',
		"SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'victim' AND state = 'idle in transaction (aborted)'")
	  or die 'the transaction does not fail';
	is(stat_of("sessions || ' ' || cancelled"), '0 1', 'and is over with it');
	append_to_file($rolled_back, '');
	$victim->finish;
}

# requests that become late while their session is busy count as long as it is
# inside a call, and no longer
use_script('201-then-201,delay=300-then-201,delay=4000-then-' . repeated(30, '201') . '-then-'
	  . repeated(4, '201,delay=900') . '-then-hold,n=2');
my $leak = run_sql(
	'CREATE TEMP TABLE issued (token text)',
	'CREATE TEMP TABLE source AS SELECT i, ARRAY[lpad(i::text, 32, \'0\')::uuid] AS a FROM generate_series(1, 2) i',
	'CREATE TEMP TABLE target (i int, token text)',
	'CREATE FUNCTION pg_temp.issue_more() RETURNS trigger LANGUAGE plpgsql AS $$
	 BEGIN
		FOR j IN 1 .. 30 LOOP
			EXIT WHEN NEW.i = 2;
			PERFORM pg_sleep(0.06);
			INSERT INTO issued SELECT (sw_create_guest_token(a)).token FROM source WHERE i = 1;
		END LOOP;
		RETURN NEW;
	 END $$',
	'CREATE TRIGGER issue_more BEFORE INSERT ON target FOR EACH ROW EXECUTE FUNCTION pg_temp.issue_more()',
	$ONE, 'SET sw_guest_token.read_ahead = on',
	'INSERT INTO target SELECT i, (sw_create_guest_token(a)).token FROM source',
	'SELECT count(token) FROM issued');
is($leak->{out} . $leak->{err}, "token true\n30\n", 'a trigger reads ahead while a query above it does');
calls(4);						# so that nobody who takes a second is late
$victim = session($node, "SET sw_guest_token.base_url = '$url'", $ONE);
$sandbox->journal(38);
is(calls(1)->{out}, "token true\n", 'which leaves nothing behind that would refuse others');
$victim->finish;

# nor does a session wait for the API while the plan below the node is busy
use_script('201');
$node->safe_psql('postgres', <<'EOS');
CREATE FUNCTION slow(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
	PERFORM pg_sleep(100) WHERE i = 2;
	RETURN i;
END $$;
EOS
foreach my $busy (
	[ 'its query is busy elsewhere', 'SELECT count(t.token) FROM (SELECT slow(i)::text AS region FROM generate_series(1, 2) i OFFSET 0) q, '
		  . "sw_create_guest_token('{$ADDRESS}', region => q.region) t" ],
	[ 'a condition on the result is', "SELECT count(t.token) FROM generate_series(1, 9) i, "
		  . "sw_create_guest_token(ARRAY[lpad(i::text, 32, '0')::uuid]) t WHERE slow(length(t.token) * 0 + 2) > 0" ])
{
	$victim = session($node, "SET sw_guest_token.base_url = '$url'", 'SET sw_guest_token.read_ahead = on', $busy->[1]);
	$node->poll_query_until('postgres',
		"SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'victim' AND wait_event = 'PgSleep'")
	  or die 'the plan does not get so far';
	is(stat_of('sessions'), 0, "a session does not wait for the API while $busy->[0]");
	$node->safe_psql('postgres',
		"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'");
	$victim->finish;
}

#
# Roles' budgets
#

$node->safe_psql('postgres', <<'EOS');
CREATE ROLE app LOGIN;
CREATE ROLE other;
GRANT other TO app;
ALTER ROLE app SET sw_guest_token.tokens_per_minute = 4;
GRANT EXECUTE ON FUNCTION sw_create_guest_token, sw_create_guest_tokens, sw_refresh_guest_token TO app, other;
CREATE FUNCTION as_owner() RETURNS text LANGUAGE sql SECURITY DEFINER
	AS $$SELECT token FROM sw_create_guest_token('{11111111-1111-1111-1111-111111111111}')$$;
EOS
use_script('201');
$node->append_conf('postgresql.conf', "sw_guest_token.base_url = '$url'");
$node->reload;
$node->poll_query_until('postgres', "SELECT current_setting('sw_guest_token.base_url') = '$url'");

sub as_app
{
	return $node->psql('postgres', join(';', @_),
		extra_params => [ '-U', 'app', '-v', 'VERBOSITY=verbose' ], on_error_stop => 0);
}

(my $rc, $out, my $err) = as_app($ONE, "SET ROLE other; $ONE", "SELECT 'token ' || (as_owner() IS NOT NULL)");
is($out, "token true\n" x 2 . 'token true', 'three of four tokens, in every way');
($rc, $out, $err) = as_app(($ONE) x 2, "SET ROLE other; $ONE", 'SELECT as_owner()', outcomes_of(1));
is($out, "token true\n53400", 'the fourth, in another session, is the last');
is(sql_state($err), '53400 53400 53400', 'and neither SET ROLE nor SECURITY DEFINER gives more');
like($err,
	qr/too many tokens requested in a minute\nDETAIL:  "sw_guest_token\.tokens_per_minute" is 4\.\nHINT:  Try again later\./,
	'which says why');
is($sandbox->attempts, 4, 'nothing more was sent');
is(stat_of('over_budget'), 4, 'and the view counts');
($rc, $out, $err) = as_app('SET sw_guest_token.tokens_per_minute = 0');
like($err, qr/42501/, 'the role cannot change its budget');
is(calls(6)->{out}, "token true\n" x 6, 'others have none');

# roles whose OIDs lead to the same place get one each
my @tenants = map { "tenant_$_" } 1 .. 18;
$node->safe_psql('postgres', <<'EOS');
DO $$
DECLARE
	lo oid;
BEGIN
	FOR i IN 1 .. 18 LOOP
		LOOP
			lo := lo_create(0);
			PERFORM lo_unlink(lo);
			EXIT WHEN lo::bigint % 1024 = 1023;
		END LOOP;
		EXECUTE 'CREATE ROLE tenant_' || i || ' LOGIN';
		COMMIT;					-- which gives the locks back
	END LOOP;
END $$
EOS
$node->safe_psql('postgres', "GRANT app TO $_; ALTER ROLE $_ SET sw_guest_token.tokens_per_minute = 1") foreach @tenants;
is($node->safe_psql('postgres', "SELECT count(DISTINCT oid::bigint % 1024) FROM pg_roles WHERE rolname ~ 'tenant'"), 1,
	'roles whose OIDs have the same remainder');
is(join(' ', map { $node->safe_psql('postgres', $ONE, connstr => $node->connstr('postgres') . " user=$_") } @tenants),
	join(' ', ('token true') x 18), 'have a budget each');

# autovacuum, which computes owners' index expressions beyond any budget, must not call
$node->safe_psql('postgres', <<'EOS');
GRANT CREATE ON SCHEMA public TO app;
GRANT EXECUTE ON FUNCTION sw_guest_token_check TO app;
SET ROLE app;
CREATE FUNCTION indexed(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN i; END $$;
CREATE TABLE unlimited (i int) WITH (autovacuum_analyze_threshold = 1, autovacuum_analyze_scale_factor = 0);
CREATE INDEX ON unlimited (indexed(i));
INSERT INTO unlimited SELECT generate_series(1, 10);
CREATE OR REPLACE FUNCTION indexed(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
	$$ BEGIN PERFORM public.sw_guest_token_check(); RETURN length((public.sw_create_guest_token('{11111111-1111-1111-1111-111111111111}')).token); END $$;
EOS
$node->append_conf('postgresql.conf', "autovacuum_naptime = 1\nlog_autovacuum_min_duration = 0");
$sandbox->reset;
my $start = -s $node->logfile;
$node->reload;
my $said = '';
foreach (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
{
	$said = substr slurp_file($node->logfile), $start;
	last if $said =~ /automatic analyze of table "postgres.public.unlimited"/;
	usleep(100_000);
}
like($said, qr/ERROR:  autovacuum cannot request guest tokens\n.*HINT:  Do not request them in an index or in extended statistics\./,
	'autovacuum may request nothing');
is($sandbox->attempts, 0, 'and sends nothing');
$node->safe_psql('postgres', 'DROP TABLE unlimited');

#
# Sessions that are gone
#

use_script('hang');
foreach my $end ('TERM', 'KILL')
{
	$victim = session($node, "SET sw_guest_token.base_url = '$url'", $ONE);
	wait_for_call($node);
	is(stat_of('sessions'), 1, 'a session is inside a call');
	my $pid = $node->safe_psql('postgres',
		"SELECT pid FROM pg_stat_activity WHERE application_name = 'victim'");
	kill $end, $pid;
	$victim->finish;
	if ($end eq 'KILL')
	{
		ok($node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM sw_guest_token_stat'),
			'a crash clears all');
		next;
	}
	wait_for_stat('sessions = 0');
	is(stat_of("concat_ws(' ', calls, requests, cancelled)"), '1 1 1', 'one that was ended is no more, and its call and request are counted');
}

#
# What the views show
#

use_script(join '-then-', '201', '422', '404', '429', '503', '200', 'garbage', '201,body=x');
calls(8);
is( stat_of("concat_ws(' ', calls, requests, issued, rejected, limited, failed, timed_out, cancelled, retries, last_error)"),
	'8 8 1 2 1 4 0 0 0 08P01',
	'each kind of outcome is counted');
is( $node->safe_psql('postgres', <<"EOQ"), '18|8|Infinity|t', 'the histogram has all calls');
SELECT count(*), max(calls), max(le_ms), bool_and(calls >= before)
FROM (SELECT *, lag(calls, 1, 0) OVER (ORDER BY le_ms) AS before
      FROM sw_guest_token_latency WHERE target = left('$url', 255)) AS l
EOQ
is(stat_of('total_time > 0'), 't', 'the time is summed up');
my $parallel = $node->pg_version >= 16 ? 'debug_parallel_query' : 'force_parallel_mode';
is(run_session($node, "SET $parallel = on", 'SELECT count(*) > 0 FROM sw_guest_token_stat')->{out}, "t\n", 'a parallel worker may look');
$node->safe_psql('postgres', 'SELECT sw_guest_token_stat_reset()');
is(stat_of("concat_ws(' ', calls, requests, failed, last_error, total_time, stats_reset > now() - interval '1 minute')"),
	'0 0 0 0 t', 'a reset begins anew');

($rc, $out, $err) = as_app('SELECT * FROM sw_guest_token_stat', 'SELECT * FROM sw_guest_token_latency',
	'SELECT sw_guest_token_stat_reset()', 'SELECT * FROM sw_guest_token_stat()');
is(sql_state($err), '42501 42501 42501 42501', 'not everybody may look');
$node->safe_psql('postgres', 'GRANT pg_read_all_stats TO app');
($rc, $out, $err) = as_app('SELECT count(*) > 0 FROM sw_guest_token_stat', 'SELECT count(*) > 0 FROM sw_guest_token_latency',
	'SELECT sw_guest_token_stat_reset()');
is($out . sql_state($err), "t\nt42501", 'pg_read_all_stats may, but not reset');

# the 17th target
$node->restart;
my $n = 0;
my @urls = map { $sandbox->script("503,id=many$_") } 1 .. 17;
foreach (@urls)
{
	$url = $_;
	calls(1);
}
is($node->safe_psql('postgres', 'SELECT count(*) FROM sw_guest_token_stat'), 16, 'there are 16 targets');
$sandbox->reset;
$session = calls(12, 'SET sw_guest_token.max_retries = 1');
is($sandbox->attempts, 24, 'a 17th is not guarded');
like(
	calls(0, "SELECT ok, detail FROM sw_guest_token_check() WHERE step = 'guard'")->{out},
	qr/^t\|This target is not guarded: 16 other targets have taken all places\.$/, 'and the doctor says so');

# a rotated token is the same target, another project is not
$node->restart;
use_script('201');
calls(1, "SET sw_guest_token.api_token = 'PTother'");
calls(1, "SET sw_guest_token.api_token = 'PTsandbox'");
is($node->safe_psql('postgres', 'SELECT count(*) FROM sw_guest_token_stat'), 1, 'a token does not make a target');
calls(1, "SET sw_guest_token.project_id = 'another'");
is($node->safe_psql('postgres', 'SELECT count(*) FROM sw_guest_token_stat'), 2, 'a project does');

# a limit that PostgreSQL does not accept is not taken for none
$node->append_conf('postgresql.conf', "sw_guest_token.tokens_per_minute = '5/min'");
$node->restart;
$session = run_sql($ONE, $ONE);
like($session->{err},
	qr/ERROR:  55000: parameter "sw_guest_token\.tokens_per_minute" cannot be used\nDETAIL:  The value that it had before .*\nHINT:  Set the parameter in the configuration file\./,
	'after a limit that is not accepted, calls fail');
$node->append_conf('postgresql.conf', 'sw_guest_token.tokens_per_minute = 1');
$node->reload;
$node->poll_query_until('postgres', q{SELECT current_setting('sw_guest_token.tokens_per_minute') = '1'});
$session = run_sql($ONE, $ONE);
is("$session->{out}" . sql_state($session->{err}), "token true\n53400", 'until it is corrected, and then it counts');

# without preloading
$node->append_conf('postgresql.conf', "sw_guest_token.tokens_per_minute = 0\nshared_preload_libraries = ''");
$node->restart;
$session = run_sql('SELECT * FROM sw_guest_token_stat', 'SELECT * FROM sw_guest_token_latency',
	'SELECT sw_guest_token_stat_reset()', ($ONE) x 2,
	"SELECT ok, detail FROM sw_guest_token_check() WHERE step = 'guard'",
	'SET sw_guest_token.tokens_per_minute = 9', $ONE, "SELECT 'settings ' || ok FROM sw_guest_token_check() WHERE step = 'settings'");
is(sql_state($session->{err}), '55000 55000 55000 55000', 'without preloading there is neither statistics nor budget');
is($session->{out}, "token true\ntoken true\nt|Nothing is guarded: the server has not preloaded the library.\nsettings false\n",
	'nothing is guarded, and the doctor sees that the budget is no use');

done_testing();
