# Many requests at once, as the sandbox counts them.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use SwTest;
use Test::More;

my $node = start_server('batch', <<'EOC');
sw_guest_token.timeout = '100s'
EOC
my $sandbox = start_sandbox();
use_sandbox($node, $sandbox);

my $use = sub { "SET sw_guest_token.base_url = '" . $sandbox->script($_[0]) . "'" };
my $request = "ROW('{$ADDRESS}', NULL, NULL, NULL)::sw_guest_token_request";

# SQL for a batch of N equal requests.
sub batch
{
	my ($n, $columns) = @_;

	$columns //= 'count(*), count(token), count(DISTINCT token), count(DISTINCT ordinality)';
	return "SELECT $columns FROM sw_create_guest_tokens(array_fill($request, '{$n}'))";
}

# Concurrency: the server answers nobody until N requests are there, so that fewer
# in flight would wait for ever.
foreach my $concurrency (1, 2, 16, 64, 256)
{
	$sandbox->reset;
	my $n = 2 * $concurrency;
	my $session = run_session($node, "SET sw_guest_token.max_concurrency = $concurrency",
		&$use("hold,n=$concurrency"), batch($n));
	is($session->{err} . $session->{out}, "$n|$n|$n|$n\n",
		"$concurrency at a time: every request gets its token");
	is($sandbox->journal->{max_in_flight}, $concurrency,
		"$concurrency at a time: that many, and never more");
	cmp_ok($sandbox->journal->{connections}, '<=', $concurrency,
		"$concurrency at a time: over no more connections");
}

$sandbox->reset;
my $session = run_session($node, &$use('hold,n=16'), batch(32));
is($sandbox->journal->{max_in_flight}, 16, 'by default 16 at a time');

# rows come in order of completion
$sandbox->reset;
$session = run_session($node, &$use('201,delay=1000-then-201'), 'SET sw_guest_token.max_concurrency = 2',
	batch(3, "string_agg(ordinality::text, ' ')"));
like($session->{out}, qr/^[123] [123] [123]$/, 'each has its row');
isnt($session->{out}, "1 2 3\n", 'rows come in order of completion');

# after a 401 nothing more is sent, not even retries; requests in flight run to
# their end
$sandbox->reset;
$session = run_session($node, &$use('503,retry-after=2-then-201,delay=1000-then-401,delay=200-then-201'),
	'SET sw_guest_token.max_concurrency = 3',
	batch(100, "error_code, count(*)") . ' GROUP BY error_code ORDER BY error_code');
is($session->{out}, "28000|98\n58000|1\n|1\n",
	'a 401 stops the batch: the rest carries its error, what was sent its own');
is($sandbox->attempts, 3, 'and nothing more is sent, retries included');

# requests that wait for a connection when the 401 comes are not sent
{
	my $directory = PostgreSQL::Test::Utils::tempdir;
	make_certificate($directory);
	my $tls = start_sandbox('--tls-cert', "$directory/cert.pem", '--tls-key', "$directory/key.pem",
		'--journal', "$directory/journal");
	$session = run_session($node, "SET sw_guest_token.base_url = '$tls->{url}/script/401'",
		"SET sw_guest_token.ca_file = '$directory/cert.pem'", 'SET sw_guest_token.max_concurrency = 50',
		batch(100, "error_code, count(*)") . ' GROUP BY error_code');
	is($session->{err} . $session->{out}, "28000|100\n", 'a 401 stops what waits for a connection, too');
	$tls->stop;
	my $sent = () = slurp_file("$directory/journal") =~ /\n/g;
	cmp_ok($sent, '<=', 50, 'and no more is sent than was in flight');
}

# other failures stop nothing
$sandbox->reset;
$session = run_session($node,
	&$use('404-then-422-then-cut-then-201,body=x-then-503,retry-after=0-then-201'),
	'SET sw_guest_token.max_concurrency = 1', 'SET sw_guest_token.max_retries = 0',
	batch(10, "string_agg(coalesce(error_code, 'token'), ' ' ORDER BY ordinality)"));
is($session->{out}, "42704 22023 08006 08P01 58000 token token token token token\n",
	'failures are rows');

# each request has retries and time of its own
$sandbox->reset;
$session = run_session($node, 'SET sw_guest_token.max_retries = 20',
	&$use(join '-then-', ('503') x 10, '201'), batch(10));
is($session->{out}, "10|10|10|10\n", 'each request is tried again for itself');
is($sandbox->attempts, 20, 'as often as it needs');
$sandbox->reset;
$session = run_session($node, &$use('hang-then-201'), "SET sw_guest_token.timeout = '1s'",
	batch(50, "error_code, count(*)") . ' GROUP BY error_code ORDER BY error_code');
is($session->{out}, "08006|1\n|49\n", 'one that hangs takes no time of the others');

# a port that does not answer costs each request only its own time
my ($full, $port) = listen_dumbly();
$session = run_session($node, "SET sw_guest_token.base_url = 'https://127.0.0.1:$port'",
	"SET sw_guest_token.connect_timeout = '300ms'", 'SET sw_guest_token.max_retries = 1',
	batch(16, "error_code, count(*), min(error)") . ' GROUP BY error_code');
is($session->{out}, "08006|16|request to SignalWire timed out\n",
	'a TLS port that hangs fails each request with its own attempts');

# an answer that came in time counts, even if nobody looked at it in time: the
# process is stopped while it refuses the invalid requests of the batch (over
# existing connections: on a new one, libcurl's own timer would make it read)
$sandbox->reset;
$session = session($node, 'SELECT pg_backend_pid()', 'SET sw_guest_token.max_concurrency = 2',
	&$use('hold,n=2'), batch(2), &$use('201-then-hold,n=2,id=x'), "SET sw_guest_token.timeout = '2s'",
	"SELECT count(token) FROM sw_create_guest_tokens(array_fill($request, '{2}')"
	  . " || array_fill(NULL::sw_guest_token_request, '{600000}') || $request)");
my ($victim) = $session->wait_for(qr/^(\d+)\n/);
$sandbox->journal(4);
1 until 3 == grep { $_->{status} } @{ $sandbox->journal->{requests} };
kill 'STOP', $victim;
$sandbox->{http}->post($sandbox->script('201-then-hold,n=2,id=x') . '/api/fabric/guests/tokens', { content => '{}' });
sleep 3;
kill 'CONT', $victim;
is($session->finish->{err}, '', 'an answer that came in time is no error');
is($session->{out}, "$victim\n2|2|2|2\n3\n", 'though it was not looked at');

# many answers wait on kept-alive connections while nobody looks
$sandbox->reset;
$session = session($node, 'SELECT pg_backend_pid()', 'SET sw_guest_token.max_concurrency = 200',
	&$use('hold,n=200'), batch(200), &$use('hold,n=201'), "SET sw_guest_token.timeout = '2s'", batch(200));
$session->{process}->pump until $session->{out} =~ /^(\d+)\n/;
$victim = $1;
$sandbox->journal(400);
kill 'STOP', $victim;
$sandbox->{http}->post($sandbox->script('hold,n=201') . '/api/fabric/guests/tokens', { content => '{}' });
1 until 401 == grep { $_->{status} } @{ $sandbox->journal->{requests} };
sleep 3;
kill 'CONT', $victim;
is($session->finish->{err} . $session->{out}, "$victim\n200|200|200|200\n200|200|200|200\n",
	'all ready sockets are read before anything expires');

# a cancel in the middle: no token is lost without an error, and the session goes on
$sandbox->reset;
my $descriptors = count_descriptors();
$session = session($node, $ONE, $descriptors, &$use('201-then-hang'),
	'SET sw_guest_token.max_concurrency = 50', batch(1000),
	'RESET sw_guest_token.base_url', batch(5), $descriptors);
$sandbox->journal(51);
wait_for_call($node);
$node->safe_psql('postgres',
	"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'");
$session->finish;
is(sql_state($session->{err}), '57014', 'a batch can be cancelled');
like($session->{out}, qr/^5\|5\|5\|5$/m, 'and the session goes on');

# a query may stop after a few rows
$session = run_session($node, "SELECT count(*) FROM (SELECT * FROM sw_create_guest_tokens(array_fill($request, '{40}')) LIMIT 3) s");
is($session->{out}, "3\n", 'LIMIT');

# the query fails in the middle of the rows
$session = run_session($node, "SELECT 1 / (ordinality - 3) FROM sw_create_guest_tokens(array_fill($request, '{40}'))", $ONE);
is(sql_state($session->{err}) . ' ' . ($session->{out} =~ /token true/),
	'22012 1', 'an error of the query leaves the session whole');

# descriptors: no more are left open than a batch of the default size needs
$session = run_session($node, $descriptors, 'SET sw_guest_token.max_concurrency = 256', batch(1000),
	$descriptors, batch(256), $descriptors, $ONE);
my ($before, @after) = $session->{out} =~ /descriptors (\d+)/g;
cmp_ok($_, '<=', $before + 24, 'a large batch leaves few connections open') foreach @after;

# if descriptors run out, fewer requests are in flight
$node->append_conf('postgresql.conf', "max_files_per_process = 100");
$node->restart;
$sandbox->reset;
$session = run_session($node, 'SET sw_guest_token.max_concurrency = 256', batch(500), $ONE);
is($session->{err} . $session->{out}, "500|500|500|500\ntoken true\n",
	'where descriptors are few, fewer requests are in flight and none fails');
cmp_ok($sandbox->journal->{max_in_flight}, '<', 256, 'as the server sees it');

# idle connections to one host do not starve calls to another
my $other = start_sandbox();
$session = run_session($node, 'SET sw_guest_token.max_retries = 0', batch(200),
	"SET sw_guest_token.base_url = '$other->{url}'", 'SET sw_guest_token.max_concurrency = 64', batch(200), $ONE);
is($session->{err} . $session->{out}, "200|200|200|200\n" x 2 . "token true\n",
	'idle connections give way to those that are needed');
$node->append_conf('postgresql.conf', "max_files_per_process = 1000");
$node->restart;

# no descriptor is left for the engine itself: dblink has taken all that a session
# may have
SKIP:
{
	skip 'no dblink', 2
	  unless $node->safe_psql('postgres', q{SELECT count(*) FROM pg_available_extensions WHERE name = 'dblink'});
	$node->append_conf('postgresql.conf', "max_files_per_process = 100\nmax_connections = 100");
	$node->restart;
	$node->safe_psql('postgres', 'CREATE EXTENSION dblink');
	# dblink gives back one descriptor too many for each connection that it could not
	# make (seen in 18), so an assertion fails if all connections are closed
	my $connect = q{SELECT dblink_connect('c' || i, 'dbname=postgres host=' || split_part(current_setting('unix_socket_directories'), ',', 1) || ' port=' || current_setting('port')) FROM };
	$session = run_session($node, "$connect generate_series(1, 10) i",
		(map { "$connect (VALUES ($_)) v (i)" } 11 .. 40),
		"SELECT 'taken'", $ONE, batch(3, "error_code, count(*), min(error)") . ' GROUP BY error_code',
		batch(0), 'SELECT step, ok FROM sw_guest_token_check() WHERE NOT ok', 'SELECT count(dblink_disconnect(c)) FROM (SELECT unnest(dblink_get_connections()) c LIMIT 8) s', $ONE);
	like($session->{out},
		qr/taken\n08001\|3\|could not connect to SignalWire\n0\|0\|0\|0\nresolve\|f\n\d+\ntoken true\n\z/,
		'where no descriptor is left, requests fail and an empty batch does not');
	like($session->{err}, qr/08001: could not connect to SignalWire\nDETAIL:  No file descriptor is left\.\n/, 'as does a call');
	$node->append_conf('postgresql.conf', 'max_files_per_process = 1000');
	$node->restart;
}

# memory does not grow with the number of requests: apart from the array of requests,
# a batch of 20,000 needs no more than one of 2,000
SKIP:
{
	skip 'no /proc', 1 unless -r '/proc/self/statm';
	my $rss = "SELECT 'rss ' || (string_to_array(pg_read_file('/proc/' || pg_backend_pid() || '/statm'), ' '))[2]::bigint * 4096";

	$session = run_session($node, "SET work_mem = '1MB'", batch(2000), $rss, batch(20000), $rss);
	my ($small, $large) = $session->{out} =~ /rss (\d+)/g;
	like($session->{out}, qr/^20000\|20000\|20000\|20000$/m, '20,000 requests, 20,000 tokens');
	note("RSS after 2,000: $small, after 20,000: $large");
	cmp_ok($large - $small, '<', 16 * 1024 * 1024, 'in bounded memory');
}

done_testing();
