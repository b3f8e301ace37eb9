# Whatever the server does, the call ends with the right SQLSTATE, after the right
# number of attempts, and the session's next call works.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use SwTest;
use Test::More;

# No fault may hold a call up: one that did would run into statement_timeout, and
# show 57014.
my $node = start_server('faults', <<'EOC');
statement_timeout = '120s'
sw_guest_token.connect_timeout = '50s'
sw_guest_token.timeout = '50s'
sw_guest_token.max_retries = 1
EOC
my $sandbox = start_sandbox();
use_sandbox($node, $sandbox);

# For servers that answer never or too slowly, which shows as 08006 after one attempt.
my @impatience = ("timeout = '3s'");

# The outcome of a call to a URL, and of one to the sandbox in the same session.
sub outcome
{
	my ($url, @settings) = @_;
	my $session = run_session($node, "SET sw_guest_token.base_url = '$url'",
		(map { "SET sw_guest_token.$_" } @settings), $ONE,
		'RESET ALL', $ONE);
	my $state = sql_state($session->{err}) || 'none';

	$session->{out} =~ /token true\n\z/ or $state .= ', and the next call fails';
	return $state;
}

# Scripts of the sandbox: [script, SQLSTATE, attempts].
my @scripted = (
	(map { [ "$_", '08P01', 1 ] } 200, 202 .. 208, 226, 300 .. 308, 402, 405 .. 418, 421, 423 .. 426, 428, 431, 451, 600, 999),
	[ '400', '22023', 1 ], [ '401', '28000', 1 ], [ '403', '42501', 1 ], [ '404', '42704', 1 ], [ '422', '22023', 1 ],
	[ '429,retry-after=0', '53400', 2 ],
	(map { [ "$_,retry-after=0", '58000', 2 ] } 500, 502, 503, 504),
	(map { [ "$_,retry-after=0", '58000', 1 ] } 501, 505 .. 511, 599),
	[ '307,location=http:%2F%2F127.0.0.1:1%2F', '08P01', 1 ],
	[ '308,location=%2Fapi%2Ffabric%2Fguests%2Ftokens', '08P01', 1 ],
	[ 'close', '08006', 2 ], [ 'reset', '08006', 2 ], [ 'cut', '08006', 2 ], [ 'cutheaders', '08006', 2 ],
	[ 'cut,status=500', '58000', 2 ], [ 'cut,status=401', '28000', 1 ],
	[ 'garbage', '08P01', 1 ], [ 'bigheader', '08P01', 1 ], [ 'endlessheaders', '08P01', 1 ], [ 'endless', '08P01', 1 ],
	[ '201,size=1100000', '08P01', 1 ], [ '201,type=text%2Fplain', '08P01', 1 ],
	[ 'drip,ms=1000', '08006', 1 ], [ 'hang', '08006', 1 ], [ '503,retry-after=60', '58000', 1 ],
	[ 'early', 'none', 1 ], [ 'http10', 'none', 1 ], [ '201,close=1', 'none', 1 ], [ 'then-close', 'none', 1 ],
	[ '201,header=Set-Cookie:a=b', 'none', 1 ], [ '201,header=Alt-Svc:h2=%22:1%22', 'none', 1 ],
	[ '201,header=Strict-Transport-Security:max-age=1', 'none', 1 ],
	[ '201,header=Location:http:%2F%2F127.0.0.1:1%2F', 'none', 1 ]);
foreach my $case (@scripted)
{
	my ($script, $state, $attempts) = @$case;

	# the call that follows is counted, too
	$sandbox->reset;
	is(outcome($sandbox->script($script), "$state $attempts" eq '08006 1' ? @impatience : ()) . ' ' . ($sandbox->attempts - 1),
		"$state $attempts", "the API answers $script");
}

# Bytes, name => [SQLSTATE, attempts, bytes, end].
my $length = length $PAIR;
my $type = "Content-Type: application/json\r\n";
my $head = "HTTP/1.1 201 Created\r\n$type";
my $chunk = sprintf "%x\r\n%s\r\n", $length, $PAIR;
my $gzip = pack 'H*', '1f8b08000000000000ffab562ac9cf4ecd53b2524a54d2512a4a4d2b4a2dce8897284b523254d2514aaa05008cf3f1f122000000';
my $sized = sub { sprintf "Content-Length: %d\r\n\r\n%s", length $_[0], $_[0] };
my %raw = (
	'nothing' => [ '08006', 2, '' ],
	'one byte' => [ '08006', 2, 'H' ],
	'a reset before the headers' => [ '08006', 2, '', 'reset' ],
	'half a status line' => [ '08006', 2, 'HTTP/1.1 20' ],
	'a reset in the middle of the headers' => [ '08006', 2, "HTTP/1.1 201 Created\r\nContent-", 'reset' ],
	'no empty line after the headers' => [ '08006', 2, $head ],
	'a body that is too short' => [ '08006', 2, "${head}Content-Length: 1000\r\n\r\n$PAIR" ],
	'a reset in the middle of the body' => [ '08006', 2, "${head}Content-Length: 1000\r\n\r\n$PAIR", 'reset' ],
	'a body that stalls' => [ '08006', 1, "${head}Content-Length: 1000\r\n\r\n$PAIR", 'keep' ],
	'headers that stall' => [ '08006', 1, "HTTP/1.1 201 Created\r\nContent-", 'keep' ],
	'chunks that stop' => [ '08006', 2, "${head}Transfer-Encoding: chunked\r\n\r\n$chunk" ],
	'a chunk of a bad size' => [ '08P01', 1, "${head}Transfer-Encoding: chunked\r\n\r\nxyz\r\n$PAIR\r\n0\r\n\r\n" ],
	'an unknown transfer encoding' => [ '08P01', 1, "${head}Transfer-Encoding: rot13\r\n\r\n$PAIR" ],
	'compression that was not asked for' => [ '08P01', 1, "${head}Content-Encoding: gzip\r\n" . &$sized($gzip) ],
	'a Content-Length that is too small' => [ '08P01', 1, "${head}Content-Length: 10\r\n\r\n$PAIR" ],
	'a negative Content-Length' => [ '08P01', 1, "${head}Content-Length: -1\r\n\r\n$PAIR" ],
	'a Content-Length that is no number' => [ '08P01', 1, "${head}Content-Length: x\r\n\r\n$PAIR" ],
	'no body' => [ '08P01', 1, "$head\r\n" ],
	'only a 100' => [ '08006', 2, "HTTP/1.1 100 Continue\r\n\r\n" ],
	'a 101' => [ '08P01', 1, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", 'keep' ],
	'a status that is a word' => [ '08P01', 1, "HTTP/1.1 abc Created\r\n\r\n" ],
	'a status of two digits' => [ '08P01', 1, "HTTP/1.1 20 Created\r\n$type" . &$sized($PAIR) ],
	'an unknown version of HTTP' => [ '08P01', 1, "HTTP/9.9 201 Created\r\n$type" . &$sized($PAIR) ],
	'another protocol that looks like HTTP' => [ '08P01', 1, "ICY 201 OK\r\n$type" . &$sized($PAIR) ],
	'an SMTP greeting' => [ '08P01', 1, "220 example.com ESMTP\r\n" ],
	'a TLS alert in clear' => [ '08P01', 1, "\x15\x03\x01\x00\x02\x02\x28" ],
	'all bytes that there are' => [ '08P01', 1, join '', map { chr } 0 .. 255 ],
	'empty lines first' => [ '08P01', 1, "\r\n\r\n$head" . &$sized($PAIR) ],
	'a header without a colon' => [ '08P01', 1, "HTTP/1.1 201 Created\r\nwhat is this\r\n$type" . &$sized($PAIR) ],
	'a NUL in a header' => [ '08P01', 1, "HTTP/1.1 201 Created\r\nX: \0\r\n$type" . &$sized($PAIR) ],
	'a 401 that wants digests' => [ '28000', 1, qq{HTTP/1.1 401 No\r\nWWW-Authenticate: Digest realm="a", nonce="b"\r\n} . &$sized('') ],
	'a 407' => [ '08P01', 1, qq{HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm="a"\r\n} . &$sized('') ],
	'chunks' => [ 'none', 1, "${head}Transfer-Encoding: chunked\r\n\r\n${chunk}0\r\n\r\n" ],
	'a trailer without a colon' => [ '08P01', 1, "${head}Transfer-Encoding: chunked\r\n\r\n${chunk}0\r\nwhat is this\r\n\r\n" ],
	'chunks and a trailer' => [ 'none', 1, "${head}Transfer-Encoding: chunked\r\n\r\n${chunk}0\r\nX: y\r\n\r\n" ],
	'a body that ends with the connection' => [ 'none', 1, "$head\r\n$PAIR" ],
	'HTTP/1.0' => [ 'none', 1, "HTTP/1.0 201 Created\r\n$type\r\n$PAIR" ],
	'a 100 that was not asked for' => [ 'none', 1, "HTTP/1.1 100 Continue\r\n\r\n$head" . &$sized($PAIR) ],
	'hints first' => [ 'none', 1, "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n$head" . &$sized($PAIR) ],
	'no reason phrase' => [ 'none', 1, "HTTP/1.1 201\r\n$type" . &$sized($PAIR) ],
	'line feeds alone' => [ 'none', 1, "HTTP/1.1 201 Created\nContent-Type: application/json\nContent-Length: $length\n\n$PAIR" ],
	'a comma too many' => [ '08P01', 1, $head . &$sized(qq({"token":"a","refresh_token":"b","x":[@{[ join ',', ('{}') x 4999 ]}]})) ],
	'many values, with 10,000 marks' => [ 'none', 1, $head . &$sized(qq({"token":"a","refresh_token":"b","x":[1,@{[ join ',', ('{}') x 4998 ]}]})) ],
	'more after the end' => [ 'none', 1, $head . &$sized($PAIR) . "HTTP/1.1 500 Late\r\n\r\n" ]);

my @names = sort keys %raw;
my $server = start_raw(
	{   map {
			(   "case$_" => {
					bytes => unpack('H*', $raw{ $names[$_] }[2]),
					end => $raw{ $names[$_] }[3] // 'close' })
		} 0 .. $#names });
foreach my $i (0 .. $#names)
{
	my ($state, $attempts) = @{ $raw{ $names[$i] } };
	my $outcome = outcome("$server->{url}/case$i", "$state $attempts" eq '08006 1' ? @impatience : ());

	# the server names the case before it answers
	$server->{timer}->start;
	$server->{process}->pump_nb;
	my $count = () = $server->{out} =~ /^case$i$/mg;
	is("$outcome $count", "$state $attempts", "the server sends $names[$i]");
}
$server->finish;

# HTTP/2
my @files = make_certificate(PostgreSQL::Test::Utils::tempdir);
my $use_certificate = "SET sw_guest_token.ca_file = '$files[0]'";
foreach my $case (
	[ 'rst_stream', '08006' ], [ 'refused_stream', '08006' ], [ 'goaway', '08006' ],
	[ 'close', '08006' ], [ 'cut', '08006' ], [ 'rst_in_body', '08006' ])
{
	my ($action, $state) = @$case;
	my $h2 = start_raw({ '*' => $action }, @files);

	is(outcome($h2->{url}, "ca_file = '$files[0]'"),
		$state, "in HTTP/2 the server does $action");
	$h2->finish;
}

# streams that the server refuses unprocessed are sent again, without counting; by
# itself, libcurl tries six times; we start it six times, and once more for each retry
foreach my $case (
	[ 'refused_stream', 12, 1, '1|', 13 ], [ 'refused_stream', 100, 20, '20|', 120 ], [ 'refused_stream', 1000, 1, '0|08006', 36 ],
	[ 'refused_stream', 1000, 1, '0|08006', 48, 2 ], [ 'rst_stream', 1000, 20, '0|08006', 20 ], [ 'turn_away', 4, 1, '1|', 5 ], [ 'turn_away', 1000, 1, '0|08006' ])
{
	my ($action, $times, $n, $issued, $sent, $retries) = @$case;
	my $h2 = start_raw({ '*' => $action, times => $times }, @files);
	my $session = run_session($node, "SET sw_guest_token.base_url = '$h2->{url}'",
		$use_certificate, 'SET sw_guest_token.max_retries = ' . ($retries // 0), "SET sw_guest_token.timeout = '1min'",
		'SELECT count(token), min(error_code) FROM ' . batch_of($n));

	is($session->{err} . $session->{out}, "$issued\n", "$n requests, with $times times $action");
	$h2->finish;
	is(() = $h2->{out} =~ /^\*$/mg, $sent, 'the server gets no more than it must') if defined $sent;
}

# a connection that the network has lost is not used again, although HTTP/2 can do without
# one of its streams
my $lossy = start_raw({ '*' => 'mute', spare => 1, times => 1 }, @files);
my $lost = run_session($node, "SET sw_guest_token.base_url = '$lossy->{url}'",
	$use_certificate, 'SET sw_guest_token.max_retries = 0',
	$ONE, "SET sw_guest_token.timeout = '300ms'", $ONE, 'RESET sw_guest_token.timeout', $ONE);
is($lost->{out} . sql_state($lost->{err}), "token true\n" x 2 . '08006', 'an HTTP/2 connection over which a request times out is closed');
$lossy->finish;

# nor are the others that are kept alive, or shared
my $created = raw_response('201 Created', $PAIR);
$lossy = start_raw({ x => [ ({ bytes => $created, end => 'keep' }) x 8, ({ bytes => $created, end => 'next' }) x 3 ] });
$lost = run_session($node, "SET sw_guest_token.base_url = '$lossy->{url}/x'", 'SET sw_guest_token.max_retries = 0',
	'SELECT count(token) FROM ' . batch_of(8),
	"SET sw_guest_token.timeout = '2s'", ($ONE) x 4);
is($lost->{out} . sql_state($lost->{err}), "8\n" . "token true\n" x 3 . '08006', 'of many idle connections that the network has lost, one is tried');
$lossy->finish;
$lossy = start_raw({ '*' => 'mute', spare => 20, times => 1, pause => 0.02 }, @files);
$lost = run_session($node, "SET sw_guest_token.base_url = '$lossy->{url}'",
	$use_certificate, 'SET sw_guest_token.max_retries = 0',
	"SET sw_guest_token.timeout = '3s'", 'SET sw_guest_token.max_concurrency = 4',
	'SELECT count(token) >= 96 FROM ' . batch_of(100));
is($lost->{out}, "t\n", 'a batch does not go on using an HTTP/2 connection that the network has lost');
$lossy->finish;
$lossy = start_raw({ '*' => 'mute', spare => 20, times => 1, pause => 0.02, streams => 2 }, @files);
$lost = run_session($node, "SET sw_guest_token.base_url = '$lossy->{url}'",
	$use_certificate, 'SET sw_guest_token.max_retries = 0',
	"SET sw_guest_token.timeout = '2s'", 'SET sw_guest_token.max_concurrency = 4',
	'SELECT count(token) FROM ' . batch_of(400));
is($lost->{out}, "398\n", 'not even if another one works');
$lossy->finish;

# once libcurl knows that a host speaks HTTP/2, up to 8.4 it sends several requests over a
# connection that does not, even while a response comes, whose rest may then go to any of
# them (mostly to another, hence several times); each row gets its own token all the same
foreach my $case (
	[ 'in one piece', 100, 2, streams => 1, pause => 0.01 ],
	([ 'in two pieces', 31, 1, streams => 15, uses => 2, pause => 0.01, gap => 0.5 ]) x 3,
	([ 'in two pieces, headers too', 31, 1, streams => 15, uses => 2, pause => 0.01, gap => 0.5, cut => 30 ]) x 2)
{
	my ($name, $n, $times, @members) = @$case;
	my $mixed = start_raw({ '*' => '', times => 0, mixed => 1, @members }, @files);
	my $unmixed = run_session($node, "SET sw_guest_token.base_url = '$mixed->{url}'",
		$use_certificate, 'SET sw_guest_token.max_retries = 0', $ONE, (<<"EOQ") x $times);
SELECT count(token), count(*) FILTER (WHERE token = region) FROM
	(SELECT array_agg(ROW('{$ADDRESS}', NULL, n, NULL)::sw_guest_token_request ORDER BY n) AS requests FROM generate_series(1, $n) n) r,
	LATERAL (SELECT token, requests[ordinality].region FROM sw_create_guest_tokens(requests)) t
EOQ
	is($unmixed->{err} . $unmixed->{out}, "token true\n" . "$n|$n\n" x $times,
		"of several hosts behind a name, not all speak HTTP/2, and answers come $name");
	$mixed->finish;
}

# while a process is stopped, its time to connect does not run
my $slow = start_raw({ '*' => '', times => 0, handshake => 1 }, @files);
my $paused = session($node, 'SELECT pg_backend_pid()', "SET sw_guest_token.base_url = '$slow->{url}'",
	$use_certificate, "SET sw_guest_token.connect_timeout = '2s'",
	'SET sw_guest_token.max_retries = 0', $ONE);
my ($pid) = $paused->wait_for(qr/^(\d+)\n/);
wait_for_call($node);
stop_process($pid, 4);
$paused->finish;
is($paused->{err} . $paused->{out}, "$pid\ntoken true\n", 'a process that was stopped connects after all');
$slow->finish;

# a connection that the server ends only in TLS looks like one that libcurl has closed;
# and while its first answer is due, a batch makes the connections that it needs
my $tls = start_raw(
	{ http1 => 1, fill => { bytes => $created, end => 'next', after => 12 },
		notify => { bytes => '', end => 'notify' } },
	@files);
my $filled = run_session($node, $use_certificate, 'SET sw_guest_token.max_retries = 0',
	"SET sw_guest_token.base_url = '$tls->{url}/fill'",
	'SELECT count(token) FROM ' . batch_of(12),
	"SET sw_guest_token.base_url = '$tls->{url}/notify'", $ONE);
is($filled->{out} . sql_state($filled->{err}), "12\n08006", 'a server that takes a request and ends TLS, after a batch');
$tls->{process}->pump_nb;
cmp_ok(scalar(() = $tls->{out} =~ /^notify$/mg), '<=', 2, 'gets it twice at most');
$tls->finish;

# what arrives on an idle connection is not taken for the answer to the next request:
# some proxies, for example, close it with a 408; but HTTP/2 has frames of its own
my $answer = { bytes => $created, end => 'next', stray => raw_response('408 Late', '{}', 'Connection: close') };

# stray(SERVER): a statement that makes the server send it
sub stray
{
	my ($server) = @_;
	my $program = qq{import socket; socket.create_connection(("127.0.0.1", $server->{port})).recv(1)};

	return "COPY (SELECT) TO PROGRAM 'cat >/dev/null; python3 -c ''$program'''";
}

foreach my $case (
	[ 'HTTP', { x => $answer }, [], 2 ],
	[ 'HTTP over TLS', { x => $answer, http1 => 1 }, \@files, 2 ],
	[ 'HTTP/2', { '*' => '', times => 0, stray => '0000080600' . '0' x 24 }, \@files, 1 ])
{
	my ($protocol, $answers, $files, $n) = @$case;
	my $server = start_raw($answers, @$files);
	my $session = run_session($node, "SET sw_guest_token.base_url = '$server->{url}/x'",
		$use_certificate, 'SET sw_guest_token.max_retries = 0', 'SET client_min_messages = debug1',
		$ONE, stray($server), $ONE, $ONE);

	is($session->{out}, "token true\n" x 3, "$protocol: something arrives between two requests");
	is(() = $session->{err} =~ /^DEBUG: .*status 201 .*over a new connection/mg, $n, "and $n connections are made");
	$server->finish;
}

# a request that was not sent over such a connection has made no attempt
$server = start_raw({ x => $answer, deaf => 1 });
my $refused = run_session($node, "SET sw_guest_token.base_url = '$server->{url}/x'", 'SET sw_guest_token.max_retries = 0',
	$ONE, stray($server), $ONE);
is($refused->{out} . sql_state($refused->{err}), "token true\n08001", 'if the new connection is refused, that is the error');
$server->finish;
my $plain = { %$answer, after => 4 };
delete $plain->{stray};
$server = start_raw(
	{   http1 => 1, hang => 4,
		x => [ ({ %$answer, after => 4 }) x 3, $plain, { bytes => raw_response('401 No', '{}'), end => 'close' } ] },
	@files);
my $four = 'SELECT error_code, count(*) FROM ' . batch_of(4) . ' GROUP BY 1';
my $stopped = run_session($node, "SET sw_guest_token.base_url = '$server->{url}/x'",
	$use_certificate, 'SET sw_guest_token.max_retries = 0', $four, stray($server), $four);
is($stopped->{err} . $stopped->{out}, "|4\n28000|4\n", 'if another is refused meanwhile, it is not sent');
$server->finish;

# such a request does not need a connection of its own: if descriptors are scarce,
# idle connections may have them all
$node->append_conf('postgresql.conf', 'max_files_per_process = 100');
$node->restart;
$server = start_raw({
	x => { %$answer, after => 12 }, y => { %$plain, after => 0, together => 3 } });
my $many = sub { 'SELECT error_code, count(*) FROM ' . batch_of($_[0]) . ' GROUP BY 1' };
my $short = run_session($node, "SET sw_guest_token.base_url = '$server->{url}/x'",
	'SET sw_guest_token.max_concurrency = 64', 'SET sw_guest_token.max_retries = 0', &$many(12), stray($server),
	"SET sw_guest_token.base_url = '$server->{url}/y'", &$many(60));
is($short->{err} . $short->{out}, "|12\n|60\n", 'where descriptors are short, as many requests run as before');
$server->finish;
$node->append_conf('postgresql.conf', 'max_files_per_process = 1000');
$node->restart;

# no connection
my ($dumb, $dumb_port) = listen_dumbly();
my ($closed, $closed_port) = listen_dumbly();
close $closed;
is(outcome("http://127.0.0.1:$closed_port"), '08001', 'a closed port');
is(outcome("https://127.0.0.1:$closed_port"), '08001', 'a closed port, with TLS');
is(outcome('https://no-such-host.invalid'), '08001', 'a host that does not exist');
is(outcome('https://' . join('.', ('a' x 63) x 4) . '.invalid'), '08001', 'a host name that is too long');
is(outcome($sandbox->{url} =~ s/http:/https:/r), '08001', 'a port that speaks no TLS');
is(outcome("https://127.0.0.1:$dumb_port", "connect_timeout = '100ms'"), '08006', 'a port that does not answer');

# proxies: the sandbox refuses to be one, because it knows no such path
is(outcome('https://example.invalid', "proxy = '$sandbox->{url}'"), '08001', 'a proxy that refuses the tunnel');
is(outcome($sandbox->script('407'), "proxy = '$sandbox->{url}'"), '08001', 'a proxy that wants other credentials, without a tunnel');
is(outcome('https://example.invalid', "proxy = 'http://127.0.0.1:$closed_port'"), '08001', 'a proxy that is not there');
is(outcome('https://example.invalid', "proxy = 'http://no-such-host.invalid'"), '08001', 'a proxy whose name does not exist');
is(outcome('https://example.invalid', "proxy = 'socks5h://127.0.0.1:$closed_port'"), '08001', 'a SOCKS proxy that is not there');
is(outcome('https://example.invalid', "proxy = 'http://127.0.0.1:$dumb_port'", "connect_timeout = '100ms'"),
	'08006', 'a proxy that does not answer');

done_testing();
