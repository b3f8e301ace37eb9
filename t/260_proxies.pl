# Through a proxy: what it is told, and what it is not.  (t/200_faults.pl has proxies
# that refuse or are not there, and t/090_environment.pl those that the environment
# names.)

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use JSON::PP;
use MIME::Base64;
use PostgreSQL::Test::Utils;
use SwTest;
use Test::More;

my $directory = PostgreSQL::Test::Utils::tempdir;
my ($out, $err) = ('', '');
my @certificate = make_certificate($directory);

# by default, OpenSSL may refuse old versions itself, so the test would prove nothing
append_to_file("$directory/openssl.cnf", <<'EOC');
openssl_conf = init
[init]
ssl_conf = ssl
[ssl]
system_default = default
[default]
MinProtocol = TLSv1
CipherString = ALL:@SECLEVEL=0
EOC
$ENV{OPENSSL_CONF} = "$directory/openssl.cnf";
my $node = start_server('proxies', "sw_guest_token.ca_file = '$directory/cert.pem'\n");
my $journal = "$directory/journal";
my $sandbox = start_sandbox('--tls-cert', $certificate[0], '--tls-key', $certificate[1], '--journal', $journal);
use_sandbox($node, $sandbox);
my $proxy_credentials = encode_base64('user:pa/ss', '');
my $batch = 'SELECT count(token) FROM ' . batch_of(40);

# start_tunnel(ARGUMENT...): a proxy, its port, and what clients said to it
sub start_tunnel
{
	my $self = start_process([ 't/tunnel.py', @_ ]);

	($self->{port}) = $self->wait_for(qr/^(\d+)\n/);
	$self->{out} =~ s/^\d+\n//;
	return $self;
}

sub said_to
{
	my ($tunnel) = @_;

	$tunnel->finish;
	return map { JSON::PP->new->allow_nonref->decode($_) } split /\n/, $tunnel->{out};
}

foreach my $case ([ 'http' ], [ 'https', @certificate ])
{
	my ($scheme, @arguments) = @$case;
	my $tunnel = start_tunnel(@arguments);

	my $session = run_session($node,
		"SET sw_guest_token.proxy = '$scheme://user:pa%2Fss\@127.0.0.1:$tunnel->{port}'", $ONE, $ONE, $batch,
		'SELECT string_agg(step, $$ $$) FROM sw_guest_token_check() WHERE ok');
	is( $session->{err} . $session->{out},
		"token true\ntoken true\n40\npreload settings credentials resolve connect tls clock authorize guard\n",
		"$scheme: calls, batches and the doctor go through the proxy");

	my @heads = said_to($tunnel);
	cmp_ok(scalar @heads, '>=', 2, "$scheme: the proxy was asked for tunnels");
	is((grep { !/^CONNECT 127\.0\.0\.1:\d+ HTTP/ } @heads), 0, "$scheme: and for nothing else");
	is((grep { !/^Proxy-Authorization: Basic \Q$proxy_credentials\E\r$/m } @heads),
		0, "$scheme: it gets its own credentials");
	is((grep { /^(?:Authorization|Content-Type|User-Agent|Accept):/mi } @heads), 0, "$scheme: and nothing of the request");
}

$sandbox->stop;
is((grep { decode_json($_)->{authorized} } split /\n/, slurp_file($journal)), 86, 'the API got the credentials each time');

# GSSAPI is not offered to a SOCKS proxy: its look-ups could not be interrupted
{
	my ($listener, $port) = listen_dumbly();
	my $session = session($node, "SET sw_guest_token.proxy = 'socks5h://user:pass\@127.0.0.1:$port'", 'SET sw_guest_token.max_retries = 0', $ONE);
	my $client = $listener->accept;

	sysread $client, my $greeting, 100;
	close $client;
	$session->finish;
	is(unpack('H*', $greeting) . sql_state($session->{err}), '05020002' . '08001', 'a SOCKS proxy can choose between a password and none');
}

# no old version of TLS is used, neither with the API nor with a proxy
foreach my $setting ('base_url', 'proxy')
{
	my $old = start_tunnel('tls1.1', @certificate);
	IPC::Run::run([ 'openssl', 's_client', '-tls1_1', '-connect', "127.0.0.1:$old->{port}" ],
		'<', \"GET / HTTP/1.0\n\n", '>', \$out, '2>', \$err);
	my $session = run_session($node, 'SET sw_guest_token.max_retries = 0',
		"SET sw_guest_token.$setting = 'https://127.0.0.1:$old->{port}'", $ONE);

	is(sql_state($session->{err}), '08001', "$setting: a server that knows TLS 1.1 only is refused");
	my ($control, @rest) = said_to($old);
	like($control, qr/^GET/, "$setting: though it can be spoken to");
	is("@rest", 'no TLS', "$setting: and learns nothing");
}

done_testing();
