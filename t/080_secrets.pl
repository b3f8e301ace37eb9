# No secret reaches a log or a message, at any level, whatever happens.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use MIME::Base64;
use PostgreSQL::Test::Utils;
use SwTest;
use Test::More;

my $sandbox = start_sandbox();

# the secrets are set before the server starts, because PostgreSQL itself logs what a
# reload changes, and the statements of a session
my $file = PostgreSQL::Test::Utils::tempdir . '/api_token';
open my $handle, '>', $file or die $!;
print $handle "PTsandbox\n";
close $handle;
chmod 0600, $file;
my $proxy = $sandbox->{url} =~ s{//}{//proxyuser:hunter%2Ftwo@}r;
my $node = start_server('secrets', <<"EOC");
sw_guest_token.base_url = '$sandbox->{url}'
sw_guest_token.project_id = '00000000-0000-4000-8000-000000000000'
sw_guest_token.api_token_file = '$file'
sw_guest_token.proxy = '$proxy'
log_min_messages = debug5
log_min_error_statement = error
log_statement = all
log_error_verbosity = verbose
EOC

my $refresh_token = 'eyJa refresh token "with" \\odd/ characters';
my @sessions = (
	run_session($node,
		"SET client_min_messages = debug5", $ONE,
		'SELECT count(token) FROM ' . batch_of(5),
		map { ("SET sw_guest_token.base_url = '" . $sandbox->script($_) . "'", $ONE) } (
			'401', '403', '404', '422', '500,retry-after=0', 'close', 'cut', 'garbage', 'bigheader',
			'echo', 'echo,status=404', 'echo,raw=1', 'echo,shape=errors,status=422', 'echo,status=302',
			'201,token=%C3%A4', 'echo,status=200', 'echo,status=201', 'hang')),

	# in a batch the message is in a row
	run_session($node,
		"SET sw_guest_token.base_url = '" . $sandbox->script('echo,shape=errors,status=422') . "'",
		'SELECT error FROM ' . batch_of(2)));
my $client = join '', map { $_->{out} . $_->{err} } @sessions;
like($client, qr/\*\*\*/, 'what a server sends back is blanked');

# the refresh token is written in hexadecimal, because the statement is logged
my $psql = "\\set VERBOSITY verbose\n";
foreach my $script ('echo,status=404', 'echo,shape=errors,status=422', 'echo,raw=1,status=400')
{
	my $hex = unpack 'H*', $refresh_token;

	$psql .= "SET sw_guest_token.base_url = '" . $sandbox->script($script) . "';\n"
	  . "SELECT sw_refresh_guest_token(convert_from('\\x$hex', 'UTF8'));\n";
}
my ($rc, $out, $err) = $node->psql('postgres', $psql, on_error_stop => 0);
$client .= "$out\n$err";

# the proxy's password, if the proxy refuses a tunnel, and if its scheme is unknown
$client .= run_session($node, "SET sw_guest_token.base_url = 'https://127.0.0.1:1'", $ONE)->{err};
$node->append_conf('postgresql.conf', "sw_guest_token.proxy = 'what://proxyuser:hunter%2Ftwo\@127.0.0.1:1'");
$node->restart;
$client .= run_session($node, $ONE)->{err};

$node->stop;
my $log = slurp_file($node->logfile);
like($log, qr/DEBUG:/, 'the log is at its most talkative');

my %secrets = (
	'the API token' => 'PTsandbox',
	'the Authorization value' => encode_base64('00000000-0000-4000-8000-000000000000:PTsandbox', ''),
	'the proxy\'s password' => 'hunter/two',
	'the proxy\'s password as the URL has it' => 'hunter%2Ftwo',
	'the Proxy-Authorization value' => encode_base64('proxyuser:hunter/two', ''),
	'the refresh token' => 'refresh token "with"',
	'the escaped refresh token' => 'refresh token \\"with',
	'an issued token' => 'eyJhbGciOiJkaXIi');
foreach my $name (sort keys %secrets)
{
	ok(index($client, $secrets{$name}) < 0, "$name does not reach the client's messages");
	ok(index($log, $secrets{$name}) < 0, "$name does not reach the log");
}

done_testing();
