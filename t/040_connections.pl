# Connections are kept alive for the session, and replaced if the server has
# closed them in the meantime.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use SwTest;
use Test::More;

my $node = start_server('connections');
my $sandbox = start_sandbox();
use_sandbox($node, $sandbox);

my $use = sub { "SET sw_guest_token.base_url = '" . $sandbox->script($_[0]) . "'" };

run_session($node, ($ONE) x 10);
is($sandbox->attempts . ' ' . $sandbox->journal->{connections},
	'10 1', 'ten calls of a session use one connection');

$sandbox->reset;
run_session($node, $ONE, "SET sw_guest_token.timeout = '9s'", $ONE, &$use('404'), $ONE,
	'RESET sw_guest_token.base_url', 'BEGIN', $ONE, 'ROLLBACK', $ONE);
is($sandbox->attempts . ' ' . $sandbox->journal->{connections},
	'5 1', 'so do calls with other settings, after errors and in other transactions');

# a connection that the server has closed does not count as a failed attempt, which
# max_retries = 0 would not repeat
$sandbox->reset;
my $session = run_session($node, 'SET sw_guest_token.max_retries = 0', &$use('then-close'), ($ONE) x 5);
is($session->{err} . $session->{out},
	"token true\n" x 5, 'a connection that was closed meanwhile is replaced');
is($sandbox->journal->{connections}, 5, 'by a fresh one each time');

$sandbox->reset;
$session = run_session($node, 'SET sw_guest_token.max_retries = 0',
	&$use('201-then-close-then-201'), ($ONE) x 2);
is($session->{err} . $session->{out}, "token true\n" x 2,
	'a kept-alive connection that dies as it is used is replaced');

# it is replaced once, by a fresh one: by itself, libcurl would try five more of the
# kept-alive connections
$sandbox->reset;
$session = run_session($node, 'SET sw_guest_token.max_retries = 0',
	&$use('hold,n=12'),
	'SELECT count(token) FROM ' . batch_of(12),
	"SET sw_guest_token.base_url = '" . $sandbox->script('close,id=x-then-201') . "'", $ONE,
	"SET sw_guest_token.base_url = '" . $sandbox->script('close,id=y') . "'", $ONE);
is("$session->{out}" . sql_state($session->{err}), "12\ntoken true\n08006",
	'of many kept-alive connections one that dies is replaced, its replacement is not');
is($sandbox->attempts, 12 + 2 + 2, 'so that a request is sent twice at most');

# if a fresh connection dies, the attempt has failed
$sandbox->reset;
$session = run_session($node, 'SET sw_guest_token.max_retries = 0', &$use('close'), $ONE);
is(sql_state($session->{err}) . ' ' . $sandbox->attempts,
	'08006 1', 'a fresh connection that dies is a failed attempt');

# Connection: close is obeyed
$sandbox->reset;
$session = run_session($node, &$use('201,close=1'), ($ONE) x 3);
is($session->{err} . $session->{out}, "token true\n" x 3, 'Connection: close is no failure');
is($sandbox->journal->{connections}, 3, 'and is obeyed');

# what fails may be the host at the other end
foreach my $case ([ '503', 3 ], [ '522', 3 ], [ '500', 1 ], [ '429', 1 ])
{
	my ($status, $n_connections) = @$case;

	$sandbox->reset;
	run_session($node, 'SET sw_guest_token.max_retries = 0', &$use("201-then-$status-then-$status-then-201"), ($ONE) x 5);
	is($sandbox->attempts . ' ' . $sandbox->journal->{connections}, "5 $n_connections",
		"after a $status, " . ($n_connections > 1 ? 'the connection is closed' : 'it is kept'));
}

# nothing is left open
$session = run_session($node, $ONE, count_descriptors(), &$use('404'), ($ONE) x 50,
	&$use('close'), ($ONE) x 5, 'RESET sw_guest_token.base_url', $ONE, count_descriptors());
my ($before, $after) = $session->{out} =~ /descriptors (\d+)/g;
is($after, $before, 'failures leave no descriptor open');

done_testing();
