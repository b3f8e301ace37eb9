# Which failures are tried again, how often and after which pause, as the sandbox
# counts them.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use SwTest;
use Test::More;

my $node = start_server('retries', <<'EOC');
sw_guest_token.timeout = '100s'
EOC
my $sandbox = start_sandbox();
use_sandbox($node, $sandbox);

# script => [max_retries, SQLSTATE or none, attempts, what is tested]
my @cases = (
	[ '503,retry-after=0-then-201', 2, '', 2, 'a 503 is tried again' ],
	[ '429,retry-after=0-then-201', 2, '', 2, 'a 429 is tried again' ],
	[ '500-then-502-then-201', 2, '', 3, 'a 500 and a 502 are tried again, after a backoff' ],
	[ '504,retry-after=0-then-201', 2, '', 2, 'a 504 is tried again' ],
	[ 'cut-then-201', 2, '', 2, 'a response that breaks off is tried again' ],
	[ 'close-then-201', 2, '', 2, 'a connection that closes before a byte is tried again' ],
	[ 'reset-then-201', 2, '', 2, 'a connection that is reset is tried again' ],
	[ 'cutheaders-then-201', 2, '', 2, 'headers that break off are tried again' ],
	[ '503,retry-after=0', 0, '58000', 1, 'max_retries = 0: one attempt' ],
	[ '503,retry-after=0', 2, '58000', 3, 'max_retries = 2: three attempts' ],
	[ '429,retry-after=0', 4, '53400', 5, 'max_retries = 4: five attempts' ],
	[ '503,retry-after=0-then-404', 2, '42704', 2, 'the last status decides' ],
	(   map { [ $_, 2, '58000', 1, "a $_ is not tried again" ] }
		  (501, 505, 507)),
	[ '400', 2, '22023', 1, 'a 400 is not tried again' ],
	[ '401', 2, '28000', 1, 'a 401 is not tried again' ],
	[ '403', 2, '42501', 1, 'a 403 is not tried again' ],
	[ '404', 2, '42704', 1, 'a 404 is not tried again' ],
	[ '408', 2, '08P01', 1, 'a 408 is not tried again' ],
	[ '422', 2, '22023', 1, 'a 422 is not tried again' ],
	[ '200', 2, '08P01', 1, 'a 200 is not tried again' ],
	[ 'cut,status=422', 2, '22023', 1, 'a 422 that breaks off is not tried again' ],
	[ '201,body=x', 2, '08P01', 1, 'a malformed response is not tried again' ],
	[ 'garbage', 2, '08P01', 1, 'what is not HTTP is not tried again' ],

	# Retry-After: a session does not wait longer than two seconds
	[ '503,retry-after=1-then-201', 2, '', 2, 'a second is waited for' ],
	[ '503,retry-after=3', 2, '58000', 1, 'three seconds are not' ],
	[ '429,retry-after=3', 2, '53400', 1, 'for a 429 neither' ],
	[ '503,retry-after=99999999999', 2, '58000', 1, 'nor are three thousand years' ],
	[ '503,retry-after=Fri%2C%2031%20Dec%202100%2023:59:59%20GMT', 2, '58000', 1, 'nor is a date that is far away' ],
	[ '503,retry-after=Friday%2C%2031-Dec-60%2023:59:59%20GMT', 2, '58000', 1, 'nor one that is written in the old way' ],
	[ '503,retry-after=Sun%20Nov%20%207%2008:49:37%202094', 2, '58000', 1, 'nor one as asctime() writes it' ],
	[ '503,retry-after=Fri%2C%2031%20Dec%201999%2023:59:59%20GMT-then-201', 2, '', 2, 'a date that has passed counts as absent' ],
	[ '503,retry-after=-then-201', 2, '', 2, 'an empty Retry-After counts as absent' ],
	[ '503,retry-after=soon-then-201', 2, '', 2, 'a word counts as absent' ],
	[ '503,retry-after=21001231-then-201', 2, '58000', 1, 'eight digits are seconds, no date' ],
	[ '401,retry-after=0', 2, '28000', 1, 'Retry-After makes no 401 worth trying again' ]);

foreach my $case (@cases)
{
	my ($script, $max_retries, $state, $attempts, $name) = @$case;

	$sandbox->reset;
	my $session = run_session($node,
		"SET sw_guest_token.base_url = '" . $sandbox->script($script) . "'",
		"SET sw_guest_token.max_retries = $max_retries", $ONE);
	is(sql_state($session->{err}) . ' ' . $sandbox->attempts, "$state $attempts", $name);
}

# the pause counts against the timeout
$sandbox->reset;
my $session = run_session($node,
	"SET sw_guest_token.base_url = '" . $sandbox->script('429,retry-after=2') . "'",
	"SET sw_guest_token.timeout = '1s'", $ONE);
is(sql_state($session->{err}) . ' ' . $sandbox->attempts, '53400 1',
	'a pause of 2 s does not fit into a timeout of 1 s');

# one timeout covers all attempts, and its message mentions the last one
$sandbox->reset;
$session = run_session($node,
	"SET sw_guest_token.base_url = '" . $sandbox->script('503,retry-after=0-then-hang') . "'",
	"SET sw_guest_token.timeout = '300ms'", $ONE);
is(sql_state($session->{err}), '08006', 'the timeout is one for all attempts');
like($session->{err}, qr/after 2 attempts; the last status was 503\./, 'and tells of the last');

# a closed port is tried again, too: no server can count this, but the message does
$session = run_session($node, "SET sw_guest_token.base_url = 'http://127.0.0.1:1'", $ONE);
is(sql_state($session->{err}), '08001', 'a refused connection is an error of its own');
like($session->{err}, qr/DETAIL:  Attempt 3: /, 'after all attempts');

done_testing();
