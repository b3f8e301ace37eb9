# TLS: which servers the extension trusts, and what it says about the others.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use SwTest;
use Test::More;

my $directory = PostgreSQL::Test::Utils::tempdir;

# openssl(ARGUMENT...): runs the command, silently.
sub openssl
{
	my ($out, $err) = ('', '');

	IPC::Run::run([ 'openssl', @_ ], '<', \undef, '>', \$out, '2>', \$err)
	  or die "openssl @_: $err";
	return;
}

# certificate(NAME, SUBJECT, EXTENSIONS, ARGUMENT...): a key and a certificate
sub certificate
{
	my ($name, $subject, $extensions, @arguments) = @_;

	open my $handle, '>', "$directory/$name.ext" or die $!;
	print $handle $extensions;
	close $handle;
	openssl('req', '-new', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256',
		'-nodes', '-subj', $subject,
		'-keyout', "$directory/$name.key", '-out', "$directory/$name.csr");
	openssl('x509', '-req', '-in', "$directory/$name.csr", '-out', "$directory/$name.crt",
		'-extfile', "$directory/$name.ext", @arguments);
	return;
}

my @by_ca = ('-CA', "$directory/ca.crt", '-CAkey', "$directory/ca.key", '-CAcreateserial');
certificate('ca', '/CN=Test authority', 'basicConstraints = CA:TRUE',
	'-signkey', "$directory/ca.key", '-days', 30);
certificate('good', '/CN=localhost', 'subjectAltName = DNS:localhost, IP:127.0.0.1', @by_ca, '-days', 30);
certificate('other', '/CN=example.com', 'subjectAltName = DNS:example.com', @by_ca, '-days', 30);
certificate('self', '/CN=localhost', 'subjectAltName = DNS:localhost, IP:127.0.0.1',
	'-signkey', "$directory/self.key", '-days', 30);

# openssl x509 does not accept an end in the past; openssl ca does
mkdir "$directory/ca";
open my $handle, '>', "$directory/ca/index.txt" or die $!;
close $handle;
open $handle, '>', "$directory/ca.cnf" or die $!;
print $handle <<"EOC";
[ca]
default_ca = test
[test]
database = $directory/ca/index.txt
new_certs_dir = $directory/ca
rand_serial = yes
default_md = sha256
policy = any
[any]
commonName = supplied
EOC
close $handle;
openssl('req', '-new', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes',
	'-subj', '/CN=localhost', '-keyout', "$directory/expired.key", '-out', "$directory/expired.csr");
openssl('ca', '-batch', '-notext', '-config', "$directory/ca.cnf",
	'-cert', "$directory/ca.crt", '-keyfile', "$directory/ca.key",
	'-extfile', "$directory/good.ext", '-startdate', '20200101000000Z', '-enddate', '20200201000000Z',
	'-in', "$directory/expired.csr", '-out', "$directory/expired.crt");

my $node = start_server('tls', <<"EOC");
sw_guest_token.project_id = '00000000-0000-4000-8000-000000000000'
sw_guest_token.api_token = 'PTsandbox'
EOC

# call(CERTIFICATE, CA FILE, HOST): the outcome of two calls
sub call
{
	my ($name, $ca_file, $host) = @_;
	my $sandbox = start_sandbox('--tls-cert', "$directory/$name.crt", '--tls-key', "$directory/$name.key");
	my $url = $sandbox->{url} =~ s/127\.0\.0\.1/$host/r;
	my $session = run_session($node, "SET sw_guest_token.base_url = '$url'",
		"SET sw_guest_token.ca_file = '$ca_file'", $ONE, $ONE);

	$sandbox->stop;
	return $session;
}

my $ca = "$directory/ca.crt";
is(call('good', $ca, '127.0.0.1')->{out}, "token true\ntoken true\n",
	'a certificate of a trusted authority for the address');
is(call('good', $ca, 'localhost')->{out}, "token true\ntoken true\n", 'and for the name');
is(call('self', "$directory/self.crt", '127.0.0.1')->{out}, "token true\ntoken true\n",
	'a self-signed certificate that is named as an authority');

foreach my $case (
	[ 'self', $ca, '127.0.0.1', 'a self-signed certificate' ],
	[ 'good', '', '127.0.0.1', 'an authority that the system does not know' ],
	[ 'good', "$directory/other.crt", '127.0.0.1', 'another authority' ],
	[ 'other', $ca, '127.0.0.1', 'a certificate for another host' ],
	[ 'other', $ca, 'localhost', 'a certificate for another name' ],
	[ 'expired', $ca, '127.0.0.1', 'a certificate that has expired' ])
{
	my ($certificate, $ca_file, $host, $name) = @$case;
	my $session = call($certificate, $ca_file, $host);

	is(sql_state($session->{err}), '08001 08001', "$name is an error");
	like($session->{err}, qr/DETAIL:  Attempt 1: .*\nHINT:  .*sw_guest_token\.ca_file.*sw_guest_token_check\(\)/,
		"$name is not tried again, and the hint names ca_file, then the doctor");
}

# ca_file replaces the system's store
SKIP:
{
	my $system = '/etc/ssl/certs/ca-certificates.crt';

	skip 'no bundle of the system', 1 unless -f $system;
	is(sql_state(call('good', $system, '127.0.0.1')->{err}), '08001 08001',
		'the system\'s authorities do not vouch for the test\'s');
}

# a ca_file with a long name works like any other
my $long = $directory;
mkdir $long .= '/' . 'd' x 240 or die $! for 1 .. 5;
append_to_file("$long/ca.crt", slurp_file($ca));
my $far = start_sandbox('--tls-cert', "$directory/good.crt", '--tls-key', "$directory/good.key");
like(run_session($node, "SET sw_guest_token.base_url = '$far->{url}'", "SET sw_guest_token.ca_file = '$long/ca.crt'",
		'SET client_min_messages = debug1', $ONE, $ONE)->{err}, qr/over a new connection.*over a kept-alive connection/s,
	'a ca_file with a long name keeps connections alive');
$far->stop;

# a bundle that is replaced is read again
my $sandbox = start_sandbox('--tls-cert', "$directory/good.crt", '--tls-key', "$directory/good.key");
my $bundle = "$directory/bundle.pem";
append_to_file($bundle, slurp_file("$directory/other.crt"));
my $first = run_session($node, "SET sw_guest_token.base_url = '$sandbox->{url}'", "SET sw_guest_token.ca_file = '$bundle'",
	$ONE, "COPY (SELECT 1) TO PROGRAM 'cat >/dev/null; cp $directory/ca.crt $bundle'", $ONE);
is(sql_state($first->{err}) . " $first->{out}", "08001 token true\n", 'a bundle that is replaced is read again');

# a missing bundle is an error, even if there is a connection already
my $gone = run_session($node, "SET sw_guest_token.base_url = '$sandbox->{url}'", "SET sw_guest_token.ca_file = '$bundle'", $ONE, "COPY (SELECT 1) TO PROGRAM 'cat >/dev/null; rm $bundle'", $ONE);
is($gone->{out} . sql_state($gone->{err}), "token true\n55000", 'a bundle that has gone is missed');

# a file that is not a bundle
my $session = call('good', "$directory/good.key", '127.0.0.1');
is(sql_state($session->{err}), '55000 55000', 'a ca_file without a certificate cannot be used');
like($session->{err}, qr/HINT:  .*"sw_guest_token\.ca_file"/, 'and the hint names it');
$session = call('good', "$directory/no-such-file", '127.0.0.1');
is(sql_state($session->{err}), '55000 55000', 'nor can one that does not exist');

# a server that does not speak TLS
my ($dumb, $port) = listen_dumbly();
my $pid = fork;
if ($pid == 0)
{
	# greets and closes each connection
	for (1 .. 3)
	{
		my $client = $dumb->accept;
		print $client "220 This is no TLS\r\n";
		close $client;
	}
	POSIX::_exit(0);
}
$session = run_session($node, "SET sw_guest_token.base_url = 'https://127.0.0.1:$port'", $ONE);
is(sql_state($session->{err}), '08001', 'a TLS handshake that fails is no connection');
like($session->{err}, qr/Attempt 3:/, 'and is tried again');
like($session->{err}, qr/\nHINT:  .*sw_guest_token_check\(\)/, 'and the hint names the doctor');
waitpid $pid, 0;

done_testing();
