# What callers and servers could send to keep a backend busy is refused, or dealt
# with in no time.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IO::Socket::INET;
use PostgreSQL::Test::Utils;
use SwTest;
use Test::More;

# Generous for the slowest machine: what these limits catch took minutes.
my $node = start_server('hostile', <<'EOC');
sw_guest_token.max_retries = 0
sw_guest_token.timeout = '100s'
statement_timeout = '100s'
EOC
my $sandbox = start_sandbox();
use_sandbox($node, $sandbox);

# arguments are bounded
foreach my $call (
	"sw_create_guest_token('{$ADDRESS}', region => TEXT)",
	"sw_create_guest_token('{$ADDRESS}', ch => TEXT)",
	'sw_refresh_guest_token(TEXT)')
{
	$sandbox->reset;
	my @texts = ("repeat(E'\\x01', 65536)", "repeat('x', 65537)", "repeat(E'\\x01', 100000000)");
	my $session = run_session($node, map { 'SELECT 1 FROM ' . $call =~ s/TEXT/$_/r } @texts);

	is(sql_state($session->{err}), '22023 22023 22023', "$call: no text is too long");
	is(() = $session->{err} =~ /must not be longer than 65536 bytes/g, 2, 'of more than 64 KiB in the message\'s words');
	is($sandbox->attempts, 1, 'and nothing longer is sent');
}
my $session = run_session($node,
	"SELECT error_code FROM sw_create_guest_tokens(ARRAY[ROW('{$ADDRESS}', NULL, repeat('x', 65537), NULL)::sw_guest_token_request])");
is($session->{out}, "22023\n", 'in a batch that is a row');

# a refresh token that nearly matches the answer everywhere: searching the answer for
# it takes no longer than for any other
my ($raw_port, $raw) = answer_with('{"errors":['
	  . join(',', (sprintf '{"attribute":"%s","message":"%s","code":"%s","url":"%s"}', ('abcdefgh' x 512) x 4) x 10)
	  . ']}');
$session = run_session($node, "SET sw_guest_token.base_url = 'http://127.0.0.1:$raw_port'",
	"SELECT 1 FROM sw_refresh_guest_token(repeat('abcdefg9', 8192))",
	"SELECT 1 FROM sw_refresh_guest_token(repeat('x', 65536))");
is(sql_state($session->{err}), '22023 22023', 'what a refresh token has in common with an answer does not matter');
kill 'KILL', $raw;			# it has inherited this test's handlers
waitpid $raw, 0;

# a call that fails in a cursor leaves nothing behind, though the cursor lives on
my $slow = "SET LOCAL sw_guest_token.base_url = '" . $sandbox->script('201,delay=1500') . "'";
foreach my $call ('sw_guest_token_check()', "sw_create_guest_token('{$ADDRESS}')",
	batch_of(3))
{
	$sandbox->reset;
	$session = run_session($node, 'BEGIN', $slow, "DECLARE c CURSOR FOR SELECT * FROM $call", 'SAVEPOINT s',
		"SET LOCAL statement_timeout = '200ms'", 'FETCH c', 'ROLLBACK TO s',
		"SELECT count(*) FROM pg_backend_memory_contexts WHERE name = 'sw_guest_token batch'", $ONE, 'COMMIT', $ONE);
	is(sql_state($session->{err}) . " $session->{out}", "57014 0\ntoken true\ntoken true\n", "$call fails in a cursor");
}

# libcurl may close a socket that was never connected without telling us: it is
# given back all the same
{
	my $small = start_server('small', "max_files_per_process = 100\n");
	my ($full, $full_port) = listen_dumbly(1);
	my @fill = map { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $full_port, Blocking => 0) } 1 .. 4;

	use_sandbox($small, $sandbox);
	$sandbox->reset;
	$session = run_session($small, "SET statement_timeout = '100s'",
		"SET sw_guest_token.connect_timeout = '5ms'", <<"EOQ", 'RESET sw_guest_token.connect_timeout',
DO \$\$
BEGIN
	FOR i IN 1 .. 50 LOOP
		BEGIN
			PERFORM set_config('sw_guest_token.base_url', 'http://127.0.0.1:$full_port', true);
			PERFORM sw_create_guest_token('{$ADDRESS}');
		EXCEPTION WHEN connection_failure THEN
			NULL;
		END;
	END LOOP;
END
\$\$
EOQ
		($ONE) x 3, count_descriptors(), $ONE, count_descriptors());
	like($session->{err} . $session->{out}, qr/^(token true\n){3}descriptors (\d+)\ntoken true\ndescriptors \2\n\z/,
		'150 connections that were not made cost no descriptor');
	is($sandbox->journal->{connections}, 1, 'and no connection that is kept alive');
}

my @files = make_certificate(PostgreSQL::Test::Utils::tempdir);
my $use_certificate = "SET sw_guest_token.ca_file = '$files[0]'";

# HTTP/2: servers that never end an answer, that make libcurl ask for turn after turn,
# and that take requests without answering
foreach my $case ([ 'empty_data', 1, 1 ], [ 'window_0', 1, 1 ], [ 'eat', 16, 32 ], [ 'refuse_then_eat', 1, 4 ])
{
	my ($action, $n, $max_sent) = @$case;
	my $server = start_raw({ '*' => $action }, @files);
	my @use_server = ("SET sw_guest_token.base_url = '$server->{url}'", $use_certificate);

	$session = run_session($node, @use_server, "SET sw_guest_token.timeout = '3s'",
		'SELECT count(error_code), min(error_code) FROM ' . batch_of($n),
		"SELECT 'ticks ' || split_part(stat, ' ', 14)::int + split_part(stat, ' ', 15)::int FROM pg_read_file('/proc/self/stat') stat",
		'RESET ALL', $ONE);
	like($session->{err} . $session->{out}, qr/^$n\|08006\nticks \d+\ntoken true\n\z/, "HTTP/2, $action: the call ends");
	$server->{process}->pump_nb;
	cmp_ok(scalar(() = $server->{out} =~ /^\*$/mg), '<=', $max_sent, 'and no request is sent more often than once more');
	my ($ticks) = $session->{out} =~ /ticks (\d+)/;
	cmp_ok($ticks, '<', 150, 'whoever waits leaves the processor to others') if $action eq 'window_0' && $^O eq 'linux';

	$session = session($node, @use_server, "SET sw_guest_token.timeout = '100s'", "SET statement_timeout = '300ms'", $ONE);
	$session->finish;
	like(sql_state($session->{err}), $action eq 'window_0' ? qr/^57014$/ : qr/^(57014|08006)$/, 'it can be interrupted');
	$server->finish;
}

# HTTP/1.1: encodings that nobody has asked for are not decoded
foreach my $encoding ('gzip, gzip, gzip', 'chunked, gzip', 'deflate', 'x')
{
	my $answer = unpack 'H*', "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\ntransfer-encoding:$encoding\r\n\r\n";
	my $server = start_raw({ x => { bytes => $answer, end => 'keep' } });

	$session = run_session($node, "SET sw_guest_token.base_url = '$server->{url}/x'", $ONE);
	# from 8.1 on, libcurl refuses them by itself
	like($session->{err}, qr/08P01: response from SignalWire is not valid\nDETAIL:  Attempt 1: .*transfer.encoding/i, "encoding $encoding");
	$server->finish;
}

# but a refusal counts, however its body is encoded
foreach my $status (401, 429, 503)
{
	my $answer = unpack 'H*', "HTTP/1.1 $status X\r\nTransfer-Encoding: identity\r\n\r\nx";
	my $server = start_raw({ x => { bytes => $answer, end => 'keep' } });

	$session = run_session($node, "SET sw_guest_token.base_url = '$server->{url}/x'", $ONE);
	is(sql_state($session->{err}), { 401 => '28000', 429 => '53400', 503 => '58000' }->{$status}, "status $status with an encoding");
	$server->finish;
}

# a request that was delivered is not a failure to connect, even if the next connection
# fails
{
	my $server = start_raw({ x => [ { bytes => raw_response('201 Created', $PAIR), end => 'next' }, { bytes => '', end => 'leave' } ] });

	$session = run_session($node, "SET sw_guest_token.base_url = '$server->{url}/x'", $ONE, $ONE);
	is($session->{out} . sql_state($session->{err}), "token true\n08006", 'what was sent and not answered is a connection that broke');
	$server->finish;
}

# closing connections takes no longer if a server has sent much that is for TLS alone
{
	my $ticks = q{SELECT 'ticks ' || split_part(stat, ' ', 14)::int + split_part(stat, ' ', 15)::int FROM pg_read_file('/proc/self/stat') stat};
	my $server = start_raw({ http1 => 1, x => { bytes => raw_response('201 Created', $PAIR), end => 4000, after => 16 } }, @files);

	$session = run_session($node, "SET sw_guest_token.base_url = '$server->{url}/x'", $use_certificate,
		'SELECT count(token) FROM ' . batch_of(16),
		'SELECT pg_sleep(2)', $^O eq 'linux' ? $ticks : "SELECT 'ticks 0'",
		'RESET sw_guest_token.ca_file', 'RESET sw_guest_token.base_url', $ONE, $^O eq 'linux' ? $ticks : "SELECT 'ticks 0'");
	my $seen = qr/\A16\n\nticks (\d+)\ntoken true\nticks (\d+)\n\z/;
	like($session->{err} . $session->{out}, $seen, 'connections are closed');
	my ($before, $after) = $session->{out} =~ $seen;
	cmp_ok($after - $before, '<', 40, 'connections that are closed are not read from');
	$server->finish;
}

# a retry that is taken back has the status of the attempt before, not its body
{
	my $server = start_raw({
		http1 => 1,
		hang => 2,
		x => [
			{ bytes => raw_response('503 No', 'x' x 300000, 'Connection: close'), end => 'close' },
			{ bytes => raw_response('401 No', '', 'Connection: close'), end => 'close', after => 3 } ] }, @files);

	$session = run_session($node, "SET sw_guest_token.base_url = '$server->{url}/x'",
		$use_certificate, 'SET sw_guest_token.max_retries = 1', 'SET sw_guest_token.max_concurrency = 2',
		'SELECT error_code, error FROM ' . batch_of(2) . ' ORDER BY 1');
	is($session->{err} . $session->{out},
		"28000|SignalWire did not accept the credentials\n58000|SignalWire failed to process the request\n",
		'a 401 takes back the retry of a request whose answer was long');
	$server->finish;
}

done_testing();

# A server that answers each request with this 422: its port and process.
sub answer_with
{
	my ($body) = @_;
	my ($listener, $port) = listen_dumbly();
	my $pid = fork;

	return ($port, $pid) if $pid;
	while (my $client = $listener->accept)
	{
		my $request = '';
		my $length;
		until (defined $length && length $request >= $length)
		{
			sysread $client, $request, 65536, length $request or last;
			$length = $+[0] + $1 if $request =~ /content-length: (\d+).*?\r\n\r\n/is;
		}
		print $client "HTTP/1.1 422 No\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: "
		  . length($body) . "\r\n\r\n$body";
		close $client;
	}
	POSIX::_exit(0);
}
