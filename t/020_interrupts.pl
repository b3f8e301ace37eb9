# In each of its phases, a call can be interrupted at once, by PostgreSQL's own
# means and with its own messages, and the session goes on.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IO::Socket::INET;
use PostgreSQL::Test::Utils;
use SwTest;
use Test::More;

my $node = start_server('interrupts', <<'EOC');
sw_guest_token.timeout = '1h'
sw_guest_token.connect_timeout = '1h'
EOC
my $sandbox = start_sandbox();
use_sandbox($node, $sandbox);

# a port whose queue is full does not answer a SYN
my ($full, $full_port) = listen_dumbly(1);
my @fill = map {
	IO::Socket::INET->new(
		PeerAddr => '127.0.0.1',
		PeerPort => $full_port,
		Blocking => 0)
} 1 .. 4;
my ($dumb, $dumb_port) = listen_dumbly();

my %phases = (
	'connecting' => "http://127.0.0.1:$full_port",
	'negotiating TLS' => "https://127.0.0.1:$dumb_port",
	'waiting for the response' => $sandbox->script('hang'),
	'receiving the response' => $sandbox->script('drip,ms=1,size=1000000'),
	'pausing before retries' => $sandbox->script('503'));

# where nothing could interrupt a call, there is none: GiST calls a range's functions while it
# has a page locked
foreach my $call ("sw_create_guest_token('{$ADDRESS}')", 'sw_guest_token_check()')
{
	is( sql_state(run_session($node, <<"EOQ",
CREATE FUNCTION distance(a int, b int) RETURNS float8 IMMUTABLE LANGUAGE plpgsql AS \$\$
BEGIN
	PERFORM * FROM $call;
	RETURN a - b;
END \$\$
EOQ
				'CREATE TYPE reach AS RANGE (subtype = int, subtype_diff = distance)',
				'CREATE TABLE reaches (r reach)', 'CREATE INDEX ON reaches USING gist (r)',
				# the doctor finds what is wrong, but must not go on
				"SET sw_guest_token.base_url = '" . ($call =~ /check/ ? '' : $sandbox->{url}) . "'",
				'INSERT INTO reaches SELECT reach(i, i + 10) FROM generate_series(1, 1000) i',
				'DROP FUNCTION distance CASCADE; DROP TABLE reaches')->{err}),
		'55000', "under a lock on a page there is no $call");
}

foreach my $phase (sort keys %phases)
{
	my $set = "SET sw_guest_token.base_url = '$phases{$phase}'";
	$set .= '; SET sw_guest_token.max_retries = 100' if $phase =~ /retries/;
	my $reset = 'RESET sw_guest_token.base_url';
	my $descriptors = count_descriptors();

	# cancel
	$sandbox->reset;
	my $session = session($node, $ONE, $descriptors, $set, $ONE, $reset, $ONE, $descriptors);
	wait_for_call($node);
	$sandbox->journal(2) if $phases{$phase} =~ /script/;
	$node->safe_psql('postgres',
		"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'");
	$session->finish;
	like(
		$session->{err},
		qr/ERROR:  57014: canceling statement due to user request/,
		"$phase: a cancel ends the call in PostgreSQL's words");
	my ($before, $after) = $session->{out} =~ /descriptors (\d+)/g;
	is($session->{out} =~ s/descriptors \d+\n//gr,
		"token true\ntoken true\n", "$phase: the next call of the session works");
	is($after, $before, "$phase: and has as many descriptors open");

	# statement_timeout
	$session = run_session($node, $ONE, $set, "SET statement_timeout = '200ms'", $ONE,
		'RESET statement_timeout', $reset, $ONE);
	like(
		$session->{err},
		qr/ERROR:  57014: canceling statement due to statement timeout/,
		"$phase: statement_timeout ends the call in PostgreSQL's words");
	is($session->{out}, "token true\ntoken true\n",
		"$phase: the next call of the session works");

	# terminate
	$sandbox->reset;
	$session = session($node, $set, $ONE);
	wait_for_call($node);
	$sandbox->journal(1) if $phases{$phase} =~ /script/;
	$node->safe_psql('postgres',
		"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'");
	$session->finish;
	like(
		$session->{err},
		qr/FATAL:  57P01: terminating connection due to administrator command/,
		"$phase: pg_terminate_backend() ends the session");
	$node->poll_query_until('postgres',
		"SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'victim'");

	# the extension's own timeout says where it ran out
	next if $phase =~ /pausing/;
	$session = run_session($node, $set, "SET sw_guest_token.timeout = '500ms'", $ONE, $reset,
		'RESET sw_guest_token.timeout', $ONE);
	is(sql_state($session->{err}), '08006', "$phase: sw_guest_token.timeout ends the call");
	like(
		$session->{err},
		qr/"sw_guest_token\.timeout" \(500 ms\) ran out while \Q$phase\E, after 1 attempt;/,
		"$phase: and says so");
	is($session->{out}, "token true\n", "$phase: the next call of the session works");
}

# connect_timeout ends an attempt, not the call
foreach my $phase ('connecting', 'negotiating TLS')
{
	my $session = run_session($node, "SET sw_guest_token.base_url = '$phases{$phase}'",
		"SET sw_guest_token.connect_timeout = '50ms'", $ONE);
	is(sql_state($session->{err}), '08006', "$phase: connect_timeout is an error of its own");
	like(
		$session->{err},
		qr/"sw_guest_token\.connect_timeout" \(50 ms\) ran out while \Q$phase\E, after 3 attempts; no status was received\./,
		"$phase: after all attempts, and it says so");
}

# an error that is caught in PL/pgSQL leaves the session intact, too
my $session = run_session($node, <<"EOQ", $ONE);
DO \$\$
BEGIN
	SET LOCAL sw_guest_token.base_url = '@{[$sandbox->script('hang')]}';
	SET LOCAL sw_guest_token.timeout = '50ms';
	FOR i IN 1 .. 20 LOOP
		BEGIN
			PERFORM sw_create_guest_token('{$ADDRESS}');
		EXCEPTION WHEN connection_failure THEN
			NULL;
		END;
	END LOOP;
END
\$\$
EOQ
is($session->{err} . $session->{out}, "token true\n", 'errors can be caught, many in a row');

# a client that has gone away
$sandbox->reset;
$session = session($node, "SET client_connection_check_interval = '100ms'",
	"SET sw_guest_token.base_url = '" . $sandbox->script('hang,id=gone') . "'", $ONE);
wait_for_call($node);
$session->{process}->signal('KILL');
ok( $node->poll_query_until('postgres',
		"SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'victim'"),
	'client_connection_check_interval ends the call of a client that has gone');
$session->finish;

# pg_stat_activity shows the wait
$sandbox->reset;
$session = session($node, "SET sw_guest_token.base_url = '" . $sandbox->script('hang') . "'", $ONE);
$sandbox->journal(1);
wait_for_call($node);
is( $node->safe_psql('postgres',
		"SELECT wait_event FROM pg_stat_activity WHERE application_name = 'victim'"),
	$node->pg_version >= 17 ? 'SwGuestTokenRequest' : 'Extension',
	'pg_stat_activity names the wait');

# the server stops with a call under way
$node->stop('fast');
$session->finish;
like($session->{err}, qr/FATAL:  57P01/, 'a fast shutdown ends the call');

done_testing();
