# HTTP/2, which nginx speaks and the sandbox does not.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IO::Socket::UNIX;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SwTest;
use Test::More;

my ($nginx) = grep { -x } qw(/usr/sbin/nginx /usr/bin/nginx /usr/local/sbin/nginx);
plan skip_all => 'nginx is not installed' unless $nginx;

my $directory = PostgreSQL::Test::Utils::tempdir;
my $socket = PostgreSQL::Test::Utils::tempdir_short . '/nginx';
make_certificate($directory);

# start_nginx(PORT, PORT): starts nginx with HTTP/2 on the first port, and without on
# the other; it writes its process ID into a file when it listens.  Returns nothing if
# a port has been taken in the meantime.
#
# The answers come through a proxy, which reads each request to its end.  By itself,
# nginx would answer before it has seen the body, and libcurl 7.88 then takes the
# answer for a failure of the stream.
sub start_nginx
{
	my ($h2, $h1) = @_;

	unlink $socket;
	open my $handle, '>', "$directory/nginx.conf" or die $!;
	print $handle <<"EOC";
daemon off;
pid $directory/nginx.pid;
error_log $directory/error.log;
worker_processes 1;
events { worker_connections 1000; }
http {
	log_format counted '\$connection \$server_protocol \$status';
	access_log $directory/access.log counted;
	client_body_temp_path $directory/body;
	proxy_temp_path $directory/proxy;
	fastcgi_temp_path $directory/fastcgi;
	uwsgi_temp_path $directory/uwsgi;
	scgi_temp_path $directory/scgi;
	default_type application/json;
	ssl_certificate $directory/cert.pem;
	ssl_certificate_key $directory/key.pem;
	keepalive_requests 300;
	server { listen 127.0.0.1:$h2 ssl http2; location / { proxy_pass http://unix:$socket; } }
	server { listen 127.0.0.1:$h1 ssl; location / { proxy_pass http://unix:$socket; } }
	server {
		listen unix:$socket;
		access_log off;
		location /ok/ { return 201 '{"token":"a","refresh_token":"b"}'; }
		location /401/ { return 401 '{"error":"Unauthorized"}'; }
		location /503/ { return 503; }
	}
}
EOC
	close $handle;
	my $process = start_process([ $nginx, '-e', "$directory/error.log", '-p', $directory, '-c', "$directory/nginx.conf" ]);
	until (-s "$directory/nginx.pid")
	{
		$process->{process}->pump_nb;
		return unless $process->{process}->pumpable;
		select undef, undef, undef, 0.1;
	}
	return $process;
}

my ($h2, $h1, $server);
for (1 .. 10)
{
	($h2, $h1) = map { PostgreSQL::Test::Cluster::get_free_port() } 1 .. 2;
	last if $server = start_nginx($h2, $h1);
}
BAIL_OUT('nginx did not start: ' . slurp_file("$directory/error.log")) unless $server;

my $node = start_server('http2', <<"EOC");
sw_guest_token.project_id = 'project'
sw_guest_token.api_token = 'PTsecret'
sw_guest_token.ca_file = '$directory/cert.pem'
sw_guest_token.connect_timeout = '300s'
sw_guest_token.timeout = '300s'
sw_guest_token.max_retries = 0
EOC

# count(PORT, PATH, SQL...): the session, and the connections, protocols and statuses
# that nginx saw
sub count
{
	my ($port, $path, @sql) = @_;
	my $start = -s "$directory/access.log" // 0;
	my $session = run_session($node, "SET sw_guest_token.base_url = 'https://127.0.0.1:$port/$path'", @sql);

	# nginx writes its log after it has answered, but before it answers the next request
	my $other = IO::Socket::UNIX->new($socket) or die "could not connect to nginx: $!";
	print $other "GET / HTTP/1.0\r\n\r\n";
	die "nginx does not answer" unless <$other>;
	open my $log, '<', "$directory/access.log" or die $!;
	seek $log, $start, 0;
	my (%connections, %kinds);
	while (<$log>)
	{
		my ($connection, $protocol, $status) = split;
		$connections{$connection} = 1;
		$kinds{"$protocol $status"}++;
	}
	return ($session, scalar keys %connections, join ', ', map { "$kinds{$_} $_" } sort keys %kinds);
}

sub batch
{
	return 'SELECT count(token), min(error_code) FROM ' . batch_of($_[0]);
}

my ($session, $connections, $kinds) = count($h2, 'ok', ($ONE) x 5);
is($session->{err} . $session->{out}, "token true\n" x 5, 'HTTP/2 is spoken where the server offers it');
is("$connections: $kinds", '1: 5 HTTP/2.0 201', 'over one connection');

($session, $connections, $kinds) = count($h2, 'ok', 'SET sw_guest_token.max_concurrency = 100', batch(250));
is($session->{err} . $session->{out}, "250|\n", 'a batch is multiplexed');
is("$connections: $kinds", '1: 250 HTTP/2.0 201', 'over one connection');

# the server says goodbye every 300 requests, with others in flight
($session, $connections, $kinds) = count($h2, 'ok', 'SET sw_guest_token.max_concurrency = 50', batch(2000), $ONE);
is($session->{err} . $session->{out}, "2000|\ntoken true\n", 'a GOAWAY in the middle of a batch fails nothing');
like($kinds, qr/^20\d\d HTTP\/2\.0 201$/, 'as the server sees it');
cmp_ok($connections, '<', 200, 'over far fewer connections than requests');

($session, $connections, $kinds) = count($h2, '401', 'SET sw_guest_token.max_concurrency = 4', batch(100));
is($session->{out}, "0|28000\n", 'a 401 stops a multiplexed batch');
like($kinds, qr/^[1-4] HTTP\/2\.0 401$/, 'and no more is sent');

($session) = count($h2, '503', $ONE);
is(sql_state($session->{err}), '58000', 'a status is a status in HTTP/2, too');

($session, $connections, $kinds) = count($h1, 'ok', batch(100), $ONE);
is($session->{err} . $session->{out}, "100|\ntoken true\n", 'HTTP/1.1 over TLS where the server offers nothing else');
is($kinds, '101 HTTP/1.1 201', 'as the server sees it');
cmp_ok($connections, '<=', 16, 'over no more connections than requests in flight');

# answers that a proxy passes on together are all read, although libcurl 7.88 leaves
# HTTP/2 frames unread if the proxy speaks TLS, too
foreach my $case ([ 'http' ], [ 'https', "$directory/cert.pem", "$directory/key.pem" ])
{
	my ($scheme, @certificate) = @$case;
	my $tunnel = start_process([ 't/tunnel.py', 'join', @certificate ]);
	my ($port) = $tunnel->wait_for(qr/^(\d+)\n/);

	($session, $connections, $kinds) = count($h2, 'ok', "SET sw_guest_token.proxy = '$scheme://127.0.0.1:$port'",
		"SET sw_guest_token.timeout = '30s'", 'SET sw_guest_token.max_concurrency = 64', (batch(100)) x 5);
	is($session->{err} . $session->{out}, "100|\n" x 5, "an $scheme proxy passes answers on together");
	like($kinds, $scheme eq 'http' ? qr/^500 HTTP\/2\.0 201$/ : qr/^500 HTTP\/\S+ 201$/, 'as the server sees it');
	$tunnel->finish;
}

$server->{process}->signal('TERM');
$server->finish;
done_testing();
