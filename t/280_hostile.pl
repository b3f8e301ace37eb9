# What whoever may call the functions, or answers them, could send to keep a
# backend busy: it is refused, or dealt with in no time.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IO::Socket::INET;
use PostgreSQL::Test::Utils;
use SwTest;
use Test::More;

# Generous beyond any machine: what it catches took minutes.
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

# a refresh token that nearly matches the answer everywhere: to search for the
# one in the other takes no longer than for any other
my ($raw_port, $raw) = answer_with('{"errors":['
	  . join(',', (sprintf '{"attribute":"%s","message":"%s","code":"%s","url":"%s"}', ('abcdefgh' x 512) x 4) x 10)
	  . ']}');
$session = run_session($node, "SET sw_guest_token.base_url = 'http://127.0.0.1:$raw_port'",
	"SELECT 1 FROM sw_refresh_guest_token(repeat('abcdefg9', 8192))",
	"SELECT 1 FROM sw_refresh_guest_token(repeat('x', 65536))");
is(sql_state($session->{err}), '22023 22023', 'what a refresh token has in common with an answer does not matter');
kill 'TERM', $raw;
waitpid $raw, 0;

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
