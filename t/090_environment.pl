# What the server's environment can do to a call, and what it cannot.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use SwTest;
use Test::More;

my $sandbox = start_sandbox();

# stands in for a proxy: it refuses every tunnel, but records that one was requested
my $proxy = start_sandbox();
my $proxy_url = $proxy->{url} =~ s{//}{//proxyuser:hunter2@}r;

my $home = PostgreSQL::Test::Utils::tempdir;
foreach my $file ('.netrc', '_netrc', '.curlrc')
{
	open my $handle, '>', "$home/$file" or die $!;
	print $handle $file eq '.curlrc'
	  ? "proxy = $proxy->{url}\ninsecure\n"
	  : "machine 127.0.0.1 login somebody password else\ndefault login somebody password else\n";
	close $handle;
	chmod 0600, "$home/$file";
}

my $node = start_server('environment');
use_sandbox($node, $sandbox);

# restart_with(VARIABLE => VALUE...): restarts the server with this environment
sub restart_with
{
	my (%environment) = @_;

	local @ENV{ keys %environment } = values %environment;
	$node->restart;
	$proxy->reset;
	$sandbox->reset;
	return;
}

my $https = "SET sw_guest_token.base_url = 'https://127.0.0.1:1'";
my $once = 'SET sw_guest_token.max_retries = 0';

restart_with(HOME => $home, NETRC => "$home/.netrc", CURL_HOME => $home);
is(run_session($node, $ONE)->{out}, "token true\n", 'neither .netrc nor .curlrc is read');
ok($sandbox->journal->{requests}[0]{authorized}, 'the credentials are those of the settings');
is($proxy->attempts, 0, 'and no proxy is used');

restart_with(map { $_ => $proxy_url }
	  qw(http_proxy HTTP_PROXY https_proxy HTTPS_PROXY all_proxy ALL_PROXY));
is(run_session($node, $ONE)->{out}, "token true\n", 'plain http goes to its loopback host, whatever the environment says');
is($proxy->attempts, 0, 'not through a proxy');
my $session = run_session($node, $once, $https, $ONE);
is(sql_state($session->{err}), '08001', 'https obeys the environment\'s proxy');
is($proxy->journal->{requests}[0]{method}, 'CONNECT', 'in that it asks for a tunnel');
unlike($session->{err}, qr/hunter2/, 'whose password is not told');

foreach my $variable (qw(https_proxy HTTPS_PROXY all_proxy ALL_PROXY))
{
	restart_with($variable => $proxy->{url});
	run_session($node, $once, $https, $ONE);
	is($proxy->attempts, 1, "$variable counts");
}

# the keys with which TLS could be decrypted
make_certificate($home);
my $tls = start_sandbox('--tls-cert', "$home/cert.pem", '--tls-key', "$home/key.pem");
restart_with(SSLKEYLOGFILE => "$home/keys");
is(run_session($node, "SET sw_guest_token.base_url = '$tls->{url}'", "SET sw_guest_token.ca_file = '$home/cert.pem'", $ONE)->{out},
	"token true\n", 'a call over TLS');
ok(!-e "$home/keys", 'writes its session keys to no file');

restart_with(https_proxy => $proxy->{url}, no_proxy => '127.0.0.1');
run_session($node, $once, $https, $ONE);
is($proxy->attempts, 0, 'no_proxy counts for the environment\'s proxy');
run_session($node, $once, $https, "SET sw_guest_token.proxy = '$proxy->{url}'", $ONE);
is($proxy->attempts, 1, 'but not for that of the setting');

restart_with(https_proxy => 'what://proxyuser:hunter2@127.0.0.1:1');
$session = run_session($node, $https, $ONE);
is(sql_state($session->{err}), '55000', 'a proxy that libcurl does not know is refused, be it the environment\'s');
unlike($session->{err}, qr/hunter2/, 'without a word of its password');
like($session->{err}, qr/HINT:  The parameter is empty, so the proxy comes from the server's environment/, 'but with one of where it comes from');

done_testing();
