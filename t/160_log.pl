# What an administrator sees: one line for each attempt at DEBUG1, and the statistics
# of functions.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use SwTest;
use Test::More;

my $node = start_server('log', "track_functions = 'all'\n");
my $sandbox = start_sandbox();
use_sandbox($node, $sandbox);

my $line = qr/DEBUG:  00000: sw_guest_token: request (\d+), attempt (\d+): status (\d+) after [\d.]+ ms over (no|a new|a kept-alive) connection, (\d+) bytes, libcurl's code (\d+)/;

# lines(SQL...): what the log says about the attempts
sub lines
{
	my $session = run_session($node, @_);
	my @lines;

	while ($session->{err} =~ /$line/g)
	{
		push @lines, "$1 $2 $3 $4 " . ($5 > 0 ? 'bytes' : 'nothing') . " $6";
	}
	return join ', ', @lines;
}

is(lines('SET client_min_messages = debug1', $ONE, $ONE),
	'0 1 201 a new bytes 0, 0 1 201 a kept-alive bytes 0', 'each attempt has a line at DEBUG1');
is(lines('SET client_min_messages = debug1', "SET sw_guest_token.base_url = '" . $sandbox->script('500,retry-after=0-then-201') . "'", $ONE),
	'0 1 500 a new bytes 0, 0 2 201 a kept-alive bytes 0', 'those that are repeated as well');
is(lines('SET client_min_messages = debug1', 'SET sw_guest_token.max_retries = 0', "SET sw_guest_token.base_url = 'http://127.0.0.1:1'", $ONE),
	'0 1 0 no nothing 7', 'and those that come to nothing');
is(lines('SET client_min_messages = debug1', 'SET sw_guest_token.max_concurrency = 1',
		'SELECT count(*) FROM ' . batch_of(2)),
	'1 1 201 a new bytes 0, 2 1 201 a kept-alive bytes 0', 'in a batch the number of the request is told');
is(lines('SET client_min_messages = log', $ONE), '', 'and nothing above DEBUG1');

# statistics are flushed at the end of a session
run_session($node, $ONE, $ONE);
$node->poll_query_until('postgres',
	"SELECT calls >= 2 AND total_time > 0 FROM pg_stat_user_functions WHERE funcname = 'sw_create_guest_token'")
  or die 'no statistics';
pass('track_functions counts the calls');

done_testing();
