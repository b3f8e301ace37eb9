# The worst that can happen to a call: its process is killed, the server stops
# at once, memory or descriptors run out, a name takes for ever to look up.

use strict;
use warnings;

use File::Basename;
use FindBin;
use lib $FindBin::RealBin;
use IO::Socket::INET;
use PostgreSQL::Test::Utils;
use SwTest;
use Test::More;

my $directory = PostgreSQL::Test::Utils::tempdir;
my ($cc) = grep { defined && length } ($ENV{CC}, 'cc');
my ($out, $err) = ('', '');
my $has_shim = $^O eq 'linux' && eval {
	IPC::Run::run([ $cc, '-shared', '-fPIC', '-o', "$directory/shim.so", 't/shim.c', '-ldl' ],
		'>', \$out, '2>', \$err);
};

chomp(my $version = `curl-config --vernum`);
my $libcurl = hex $version;

my $node = start_server('crashes', <<'EOC');
restart_after_crash = on
sw_guest_token.timeout = '1h'
EOC
my $sandbox = start_sandbox();
use_sandbox($node, $sandbox);
my $hang = "SET sw_guest_token.base_url = '" . $sandbox->script('hang') . "'";
my $request = "ROW('{$ADDRESS}', NULL, NULL, NULL)::sw_guest_token_request";
my $batch = "SELECT count(token) FROM sw_create_guest_tokens(array_fill($request, '{100}'))";

# SIGHUP, SIGUSR1, SIGTERM, SIGINT, SIGQUIT, SIGALRM, SIGUSR2
my $MASK = 0;
$MASK |= 1 << $_ - 1 for 1, 2, 3, 10, 12, 14, 15;

sub works
{
	my ($name) = @_;

	is(run_session($node, $ONE, $batch, $ONE)->{out}, "token true\n100\ntoken true\n", $name);
	return;
}

# kill -9 in a call and in a batch
foreach my $call ($ONE, $batch)
{
	$sandbox->reset;
	my $session = session($node, 'SELECT pg_backend_pid()', $hang, $call);
	$sandbox->journal($call eq $ONE ? 1 : 16);
	wait_for_call($node);
	kill 'KILL', $session->wait_for(qr/^(\d+)\n/);
	$session->finish;
	$node->poll_query_until('postgres', 'SELECT true');
	works('a process that is killed in ' . ($call eq $ONE ? 'a call' : 'a batch') . ' takes nothing with it');
}

# an immediate shutdown
$sandbox->reset;
my $session = session($node, $hang, $batch);
$sandbox->journal(16);
$node->stop('immediate');
$session->finish;
$node->start;
works('after an immediate shutdown in a batch the server works');

# a restart with requests in flight
$sandbox->reset;
$session = session($node, $hang, $batch);
$sandbox->journal(16);
$node->restart;
$session->finish;
like($session->{err}, qr/FATAL:  57P01/, 'a restart ends a batch');
works('and the server works');

SKIP:
{
	skip 'no shim can be preloaded', 1 unless $has_shim;

	$node->stop;
	{
		local $ENV{LD_PRELOAD} = "$directory/shim.so";
		local $ENV{SHIM_DIRECTORY} = $directory;
		$node->start;
	}
	works('with the shim, the server works');

	# a socket that cannot be watched ends the engine, though libcurl reports no error
	append_to_file("$directory/fail_watch", '');
	$session = session($node, $ONE, "COPY (SELECT) TO PROGRAM 'cat; rm $directory/fail_watch'", $ONE);
	$session->finish;
	like($session->{err}, qr/ERROR:  53000: libcurl is out of memory or descriptors\nDETAIL:  Attempt 1 failed\.\n/,
		'a call that cannot watch its socket fails');
	like($session->{out}, qr/^token true\n\z/, 'and the next one works');

	# a look-up that takes a minute is abandoned at once
	foreach my $case (
		[ 'a cancel', qr/57014: canceling statement due to user request/, "SET sw_guest_token.timeout = '1h'" ],
		[ 'statement_timeout', qr/57014: canceling statement due to statement timeout/, "SET statement_timeout = '100ms'" ],
		[ 'timeout', qr/08006: .*\n.*"sw_guest_token\.timeout" \(100 ms\) ran out while resolving the host name/,
			"SET sw_guest_token.timeout = '100ms'" ],
		[ 'connect_timeout', qr/08006: .*\n.*"sw_guest_token\.connect_timeout" \(100 ms\) ran out while resolving the host name/,
			"SET sw_guest_token.connect_timeout = '100ms'" ])
	{
		my ($name, $expected, $setting) = @$case;

		$session = session($node, "SET sw_guest_token.base_url = 'https://slow.invalid'",
			'SET sw_guest_token.max_retries = 0', $setting, $ONE, 'RESET ALL', $ONE,
			"SELECT 'mask ' || substring(pg_read_file('/proc/self/status') FROM 'SigBlk:\\s*(\\S+)')");
		if ($name eq 'a cancel')
		{
			wait_for_call($node);
			$node->safe_psql('postgres',
				"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'");
		}
		$session->finish;
		like($session->{err}, $expected, "a slow name look-up: $name ends it");
		like($session->{out}, qr/^token true\nmask \w+\n\z/, 'and the next call works');
		state_of_mask($session->{out});
	}

	# look-ups that are given up keep running in threads, but their number is limited
	$node->append_conf('postgresql.conf', 'sw_guest_token.breaker = on');
	$node->reload;
	my @proxies = ('', 'socks4://' . ($sandbox->{url} =~ m{//([^/]+)})[0]);
	foreach my $proxy (@proxies)
	{
		my $name = $proxy ? 'for a proxy, ' : '';

		$session = session($node, 'SELECT pg_backend_pid()', "SET sw_guest_token.base_url = 'https://slow.invalid'",
			"SET sw_guest_token.proxy = '$proxy'", "SET sw_guest_token.connect_timeout = '5ms'",
			"SET sw_guest_token.timeout = '20ms'", 'SET sw_guest_token.max_concurrency = 256',
			("SELECT count(*) FROM sw_create_guest_tokens(array_fill($request, '{2000}'))") x 3,
			'SET sw_guest_token.max_retries = 0', $ONE, "SELECT 'done'", 'SELECT pg_sleep(600)');
		my ($pid) = $session->wait_for(qr/^(\d+)\n(?:2000\n){3}done\n/);
		my @threads = glob "/proc/$pid/task/*";
		cmp_ok(scalar(@threads), '<', 64 + 256 + 20, "${name}look-ups that are given up leave few threads");
		# from 8.20 on, libcurl shares a few threads among all look-ups
		like($session->{err}, $libcurl >= 0x081400 ? qr/^ERROR:  08006: .*\nDETAIL:  .*"sw_guest_token\.connect_timeout"/ :
			  qr/^ERROR:  08001: could not connect to SignalWire\nDETAIL:  Too many abandoned look-ups/,
			"${name}no more are started");
		$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
		$session->finish;
	}
	is($node->safe_psql('postgres', "SELECT string_agg(state, ' ') FROM sw_guest_token_stat WHERE target ~ 'slow'"), 'closed closed',
		'which suspends nothing');

	# several seconds may go by until the second name server is asked
	my @sessions = map { session($node, "SET sw_guest_token.base_url = 'https://late.invalid'",
			"SET sw_guest_token.proxy = '$_'", 'SET sw_guest_token.max_retries = 0', $ONE) } (@proxies) x 5;
	$_->finish foreach @sessions;
	is(join(' ', map { sql_state($_->{err}) } @sessions), join(' ', ('08001') x 10),
		'look-ups that take four seconds are not given up');
	# but others are turned away meanwhile
	$node->append_conf('postgresql.conf', 'sw_guest_token.max_sessions = 1');
	$node->reload;
	my $first = session($node, "SET sw_guest_token.base_url = 'https://slow.invalid'", $ONE);
	wait_for_call($node);
	$session = run_session($node, 'SELECT pg_sleep(4)', "SET sw_guest_token.base_url = 'https://slow.invalid'",
		"SET sw_guest_token.timeout = '1s'", 'SET sw_guest_token.max_retries = 0', $ONE);
	is(sql_state($session->{err}), '53400', 'though they keep others out');
	$node->safe_psql('postgres', "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'");
	$first->finish;
	$node->append_conf('postgresql.conf', "sw_guest_token.max_sessions = 16\nsw_guest_token.breaker = off");
	$node->reload;

	# a look-up's thread takes no signal, whether or not it is the engine's first
	$session = session($node, $ONE, "SET sw_guest_token.timeout = '1h'",
		"SET sw_guest_token.base_url = 'https://slow.invalid'", $ONE,
		"SET sw_guest_token.base_url = 'https://slow.example'", $ONE);
	for my $time ('first', 'second')
	{
		wait_for_call($node);
		my ($pid, $start) = split /\|/, $node->safe_psql('postgres',
			"SELECT pid, query_start FROM pg_stat_activity WHERE application_name = 'victim'");
		my @masks;
		foreach my $thread (glob "/proc/$pid/task/*")
		{
			push @masks, (slurp_file("$thread/status") =~ /SigBlk:\s*(\S+)/)[0]
			  unless $thread eq "/proc/$pid/task/$pid";
		}
		ok(@masks >= 1, "the $time look-up has a thread");
		is(scalar(grep { (hex(substr $_, -8) & $MASK) != $MASK } @masks), 0,
			'and none has a signal of PostgreSQL open');
		$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
		$node->poll_query_until('postgres',
			"SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid AND query_start = '$start'");
	}
	$session->finish;

	# a host with an address that does not answer
	socket my $swamp, PF_INET, SOCK_STREAM, 0 or die $!;
	bind $swamp, sockaddr_in(0, inet_aton('127.0.0.2')) or die $!;
	listen $swamp, 0 or die $!;
	my ($port) = sockaddr_in(getsockname $swamp);
	make_certificate($directory);
	my @waiting = map { IO::Socket::INET->new(PeerAddr => '127.0.0.2', PeerPort => $port, Blocking => 0) } 1 .. 4;
	my $other = start_sandbox('--port', $port, '--tls-cert', "$directory/cert.pem", '--tls-key', "$directory/key.pem");
	foreach my $host ('two', 'three')
	{
		$session = run_session($node, "SET sw_guest_token.base_url = 'https://$host.example:$port'", 'SET sw_guest_token.max_retries = 0',
			"SET sw_guest_token.connect_timeout = '3s'", "SET sw_guest_token.ca_file = '$directory/cert.pem'", $ONE);
		is($session->{err} . $session->{out}, "token true\n", "if one of $host addresses does not answer, the next one gets half of the time");
	}

	# certificate authorities are read once, and again when their file changes
	make_certificate($directory);
	my $tls = start_sandbox('--tls-cert', "$directory/cert.pem", '--tls-key', "$directory/key.pem");
	my $ca_file = "$directory/authorities";
	# a host that moves, or whose name becomes known, is found after a second
	my ($tls_port) = $tls->{url} =~ /(\d+)$/;
	append_to_file("$directory/address", "127.0.0.2\n");
	foreach my $before ("another host has its address", "its name is unknown")
	{
		$session = run_session($node, "SET sw_guest_token.base_url = 'https://moved.example:$tls_port'",
			"SET sw_guest_token.ca_file = '$directory/cert.pem'", 'SET sw_guest_token.max_retries = 0', $ONE,
			"COPY (SELECT '127.0.0.1') TO '$directory/address'", 'SELECT pg_sleep(2.1)', $ONE);
		is(sql_state($session->{err}) . $session->{out}, "08001\ntoken true\n", "the host is found although at first $before");
		unlink "$directory/address";
	}
	# so is one that has moved away from a host where nothing works
	start_sandbox('--host', '127.0.0.2', '--port', $tls_port,
		'--tls-cert', "$directory/cert.pem", '--tls-key', "$directory/key.pem");
	append_to_file("$directory/address", "127.0.0.2\n");
	$session = run_session($node, "SET sw_guest_token.base_url = 'https://moved.example:$tls_port/script/503-then-201'",
		"SET sw_guest_token.ca_file = '$directory/cert.pem'", 'SET sw_guest_token.max_retries = 0', $ONE,
		"COPY (SELECT '127.0.0.1') TO '$directory/address'", 'SELECT pg_sleep(2.1)', $ONE, $ONE);
	is(sql_state($session->{err}) . $session->{out}, "58000 58000\ntoken true\n", 'and although it answered 503 before it moved');
	unlink "$directory/address";

	my @use_tls = ("SET sw_guest_token.base_url = '$tls->{url}/script/201,close=1'",
		"SET sw_guest_token.ca_file = '$ca_file'");
	append_to_file($ca_file, slurp_file("$directory/cert.pem"));
	append_to_file("$directory/watch", $ca_file);
	# connections that fail on a busy machine do not matter here
	$session = run_session($node, @use_tls, 'SET sw_guest_token.max_retries = 10', $ONE, $batch, $ONE,
		"COPY (SELECT '') TO PROGRAM 'cat >/dev/null; touch $ca_file'", $ONE, $batch);
	is($session->{err} . $session->{out}, "token true\n100\ntoken true\ntoken true\n100\n",
		'each connection over TLS is verified');
	# from 8.17 on, a libcurl that was built with a directory of authorities
	# reads the file for each connection
	my $is_new = $libcurl >= 0x081100;
	like(slurp_file("$directory/opens"), $is_new ? qr/^(?:\.{2}|\.{203})\z/ : qr/^\.{2}\z/,
		'and ca_file is read once, and once more when it has changed');

	# the file turns bad: at the beginning of a batch that is an error; later, tokens
	# have been issued
	append_to_file("$directory/no_ca_cache", '');
	foreach my $case ([ 0, '', '55000', 'at once' ], [ 2, "token token 55000 55000\n", '', 'in the middle' ])
	{
		my ($max_opens, $out, $state, $when) = @$case;

		unlink "$directory/opens", "$directory/max_opens";
		append_to_file("$directory/max_opens", $max_opens);
		$session = run_session($node, @use_tls, 'SET sw_guest_token.max_concurrency = 1',
			"SELECT string_agg(coalesce(error_code, 'token'), ' ' ORDER BY ordinality) FROM sw_create_guest_tokens(array_fill($request, '{4}'))");
		is($session->{out} . sql_state($session->{err}), $out . $state, "a ca_file that turns bad $when");
	}
	unlink map { "$directory/$_" } qw(no_ca_cache max_opens opens watch);

	# ca_file also replaces the directory that libcurl was built with; openssl shows
	# that the authority can be found there
	my $another = "$directory/another";
	mkdir $another;
	make_certificate($another, 'another');
	append_to_file("$directory/authority", "$directory/cert.pem");
	chomp(my $system = `curl-config --ca`);
  SKIP:
	{
		local $ENV{LD_PRELOAD} = "$directory/shim.so libcurl.so.4";
		local $ENV{SHIM_DIRECTORY} = $directory;

		skip 'libcurl was built without a directory of authorities', 1
		  unless IPC::Run::run([ 'openssl', 'verify', '-CAfile', "$another/cert.pem",
				'-CApath', dirname($system), "$directory/cert.pem" ], '>', \$out, '2>', \$err);
		delete $ENV{LD_PRELOAD};
		$session = run_session($node, $use_tls[0], "SET sw_guest_token.ca_file = '$another/cert.pem'", $ONE);
		like($session->{err}, qr/^ERROR:  08001: .*\nDETAIL:  .*certificate/,
			'an authority in the system\'s directory is not trusted besides ca_file');
	}
	unlink "$directory/authority";

	# descriptors run out at any point of a call, and nothing else is blamed
	my $outcomes = '';
	foreach my $n_files (16 .. 40)
	{
		$session = run_session($node, @use_tls, 'SET sw_guest_token.max_retries = 0',
			"COPY (SELECT) TO PROGRAM 'cat >/dev/null; prlimit --pid \$PPID --nofile=$n_files:'", $ONE);
		$outcomes .= $session->{err} =~ /^ERROR:  (.*)\nDETAIL:  (.*)/ ? "$1 $2\n" : "$session->{err}$session->{out}";
	}
	like($outcomes, qr/^(?:08001: could not connect to SignalWire No file descriptor is left\.\n)+(?:token true\n)+\z/,
		'where descriptors run out, the message says so');

	# no socket can be opened
	open my $handle, '>', "$directory/fail_socket" or die $!;
	close $handle;
	$session = run_session($node, 'SET sw_guest_token.max_retries = 0', $ONE, $batch . " WHERE error_code = '08001'",
		"SELECT DISTINCT error_code, error FROM sw_create_guest_tokens(array_fill($request, '{20}'))");
	is(sql_state($session->{err}), '08001', 'no descriptor is left: no connection');
	like($session->{err}, qr/No file descriptor is left\./, 'and the message says so');
	like($session->{out}, qr/^08001\|could not connect to SignalWire$/m, 'in a batch as well');
	unlink "$directory/fail_socket";
	works('with descriptors again, the server works');

	# each allocation fails once: no crash, and the next call works.  Every
	# call makes a new connection, so that this is tested, too.
	my $torture = <<"EOQ";
DO \$\$
DECLARE
	n int := 0;
	failures int := 0;
	in_a_row int := 0;
	codes text[] := '{}';
BEGIN
	WHILE in_a_row < 20 AND n < 5000 LOOP
		n := n + 1;
		EXECUTE format('COPY (SELECT %s) TO %L', n, '$directory/fail_alloc');
		BEGIN
			PERFORM * FROM CALL;
			in_a_row := in_a_row + 1;
		EXCEPTION WHEN OTHERS THEN
			failures := failures + 1;
			in_a_row := 0;
			IF NOT SQLSTATE = ANY (codes) THEN
				codes := codes || SQLSTATE;
			END IF;
		END;
		-- whatever is left of the count is used up here
		PERFORM pg_ls_dir('$directory');
		EXECUTE format('COPY (SELECT 0) TO %L', '$directory/fail_alloc');
		PERFORM sw_create_guest_token('{$ADDRESS}');
	END LOOP;
	RAISE NOTICE '% allocations, % failures, %', n, failures, (SELECT array_agg(c ORDER BY c) FROM unnest(codes) c);
END
\$\$
EOQ
	foreach my $call (
		"sw_create_guest_token('{$ADDRESS}')",
		"sw_refresh_guest_token('token')",
		"sw_create_guest_tokens(array_fill($request, '{3}'))")
	{
		$session = run_session($node,
			"SET sw_guest_token.base_url = '" . $sandbox->script('201,close=1,token=a,refresh=b') . "'",
			'SET sw_guest_token.max_retries = 0',
			"SET sw_guest_token.timeout = '10s'",
			$torture =~ s/CALL/$call/r, "SELECT 'alive'");
		my ($n, $failures) = $session->{err} =~ /NOTICE:  00000: (\d+) allocations, (\d+) failures/;
		is($session->{out}, "alive\n", "each allocation of $call may fail: the session lives on");
		cmp_ok($n // 5000, '<', 5000, 'and all of them were tried');
		note($session->{err} =~ /NOTICE:  00000: (.*)/);
		unlike($session->{err}, qr/ERROR/, 'and no other call failed');
	}
}

done_testing();

# An idle session blocks none of PostgreSQL's signals.
sub state_of_mask
{
	my ($mask) = $_[0] =~ /mask (\w+)/;

	is(hex(substr $mask, -8) & $MASK, 0,
		'no signal of PostgreSQL is left blocked');
	return;
}
