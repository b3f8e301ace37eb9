# The doctor: which step fails, and that the steps after it are absent.  Everything
# that it says about failed steps is shown in docs/troubleshooting.md.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use SwTest;
use Test::More;

my $directory = PostgreSQL::Test::Utils::tempdir;
make_certificate($directory, 'Test authority');

my $node = start_server('check', "sw_guest_token.breaker = on\nsw_guest_token.timeout = '60s'\nsw_guest_token.connect_timeout = '60s'\n");
my $sandbox = start_sandbox();
my $tls = start_sandbox('--tls-cert', "$directory/cert.pem", '--tls-key', "$directory/key.pem");
use_sandbox($node, $sandbox);
my ($dumb, $dumb_port) = listen_dumbly();

# what the document shows, and how often it was seen here
my %seen = map { $_ => 0 }
  slurp_file("$FindBin::RealBin/../docs/troubleshooting.md") =~ /^```text\n(step .*?\n)```/msg;

# check(SETTING...): each step with + or -, and what the doctor says if one fails
sub check
{
	my $session = run_session($node, (map { "SET sw_guest_token.$_" } @_),
		'CREATE TEMP TABLE c AS SELECT row_number() OVER () AS n, * FROM sw_guest_token_check()',
		q{SELECT string_agg(step || CASE WHEN ok THEN '+' ELSE '-' END, ' ' ORDER BY n) FROM c},
		q{SELECT format(E'step   | %s\ndetail | %s\nhint   | %s', step, detail, hint) FROM c WHERE NOT ok},
		q{SELECT 'no step without detail' FROM c HAVING bool_and(detail <> '' AND took >= interval '0' AND (ok OR hint <> '') AND hint IS NOT DISTINCT FROM replace(hint, 'sw_guest_token_check', ''))});

	is($session->{err}, '', 'nothing is raised');
	like($session->{out}, qr/no step without detail/, 'each step has a detail, and a hint if it fails, which does not name the doctor');
	return split /\n/, $session->{out}, 2;
}

sub is_check
{
	my ($name, $settings, $steps, $text) = @_;
	my ($got, $rest) = check(@$settings);

	is($got, $steps, $name);
	return unless $text;

	like($rest, $text, "$name: detail and hint say it");
	foreach my $said ($rest =~ /^(step .*?\nhint .*?\n)/msg)
	{
		my @as_shown = grep { is_as_shown($said, $_) } keys %seen;
		is(scalar @as_shown, 1, "$name: the document shows it") or diag($said);
		$seen{$_}++ foreach @as_shown;
	}
	return;
}

# In the document, … stands for anything that differs.
sub is_as_shown
{
	my ($said, $shown) = @_;
	my $pattern = join '.*', map { quotemeta } split /…/, $shown;

	return $said =~ /\A$pattern\z/;
}

is_check('all is well', [], 'preload+ settings+ credentials+ resolve+ connect+ tls+ clock+ authorize+ guard+');
is($sandbox->journal->{requests}[0]{body}, '{"allowed_addresses":[]}', 'an empty list is what is sent');
is($sandbox->journal->{requests}[0]{status}, 422, 'which mints nothing');

is_check('all is well with TLS', [ "base_url = '$tls->{url}'", "ca_file = '$directory/cert.pem'" ],
	'preload+ settings+ credentials+ resolve+ connect+ tls+ clock+ authorize+ guard+');
like(
	run_session($node, "SET sw_guest_token.base_url = '$tls->{url}'", "SET sw_guest_token.ca_file = '$directory/cert.pem'",
		q{SELECT detail FROM sw_guest_token_check() WHERE step = 'tls'})->{out},
	qr/issued by .*Test authority, and expires in (29|30) days/, 'the issuer and the end of the certificate are told');
like(
	run_session($node, "SET sw_guest_token.base_url = '$tls->{url}'", "SET sw_guest_token.ca_file = '$directory/cert.pem'",
		$ONE, 'SELECT count(*) FROM sw_guest_token_check()', $ONE,
		q{SELECT detail FROM sw_guest_token_check() WHERE step = 'tls'}, $ONE)->{out},
	qr/\Atoken true\n9\ntoken true\n.*Test authority.* days\.\ntoken true\n\z/, 'and so they are behind other calls');


# a certificate that is about to expire: in two days, less at least a second
mkdir "$directory/short";
make_certificate("$directory/short", 'Test authority', 2);
my $made = time;
sleep 1 while time <= $made;
my $short = start_sandbox('--tls-cert', "$directory/short/cert.pem", '--tls-key', "$directory/short/key.pem");
is( run_session($node, "SET sw_guest_token.base_url = '$short->{url}'", "SET sw_guest_token.ca_file = '$directory/short/cert.pem'",
		q{SELECT ok, substring(detail from 'expires.*'), hint FROM sw_guest_token_check() WHERE step = 'tls'})->{out},
	"t|expires in 1 day.|The owner of the certificate should renew it soon.\n", 'one day is a day, and soon');

# clocks that agree within a second are said to agree, but two looks may be a second
# apart
like(run_session($node, q{SELECT detail FROM sw_guest_token_check() WHERE step = 'clock'})->{out},
	qr/\AThe API's clock (?:agrees with|is \d+ s (?:ahead of|behind)) this server's\.\n\z/, 'no sign is shown');

is_check('no setting', [ "base_url = ''" ], 'preload+ settings- guard+', qr/space_name" is not set/);
is_check('a setting that is wrong', [ "base_url = 'what'" ], 'preload+ settings- guard+', qr/base_url" cannot be used: It is not a URL/);
is_check('a space that is a URL', [ "base_url = ''", "space_name = 'https://example.signalwire.com'" ],
	'preload+ settings- guard+', qr/not a URL.*\n.*Write "example"/);
is_check('a ca_file that is not there', [ "ca_file = '$directory/nothing'" ], 'preload+ settings- guard+', qr/ca_file/);
is_check('no token', [ "api_token = ''" ],
	'preload+ settings+ credentials- resolve+ connect+ tls+ clock+ guard+', qr/api_token" is not set\n.*api_token_file/);
append_to_file("$directory/open", 'PTsandbox');
chmod 0644, "$directory/open";
is_check('a file of the wrong mode', [ "api_token_file = '$directory/open'" ],
	'preload+ settings+ credentials- resolve+ connect+ tls+ clock+ guard+', qr/permissions/);
is_check('a file that is not there', [ "api_token_file = '$directory/nothing'" ],
	'preload+ settings+ credentials- resolve+ connect+ tls+ clock+ guard+', qr/No such file/);
is_check('a host that does not exist', [ "base_url = 'https://no-such-host.invalid'" ],
	'preload+ settings+ credentials+ resolve- guard+', qr/could not connect.*\n.*DNS/i);
is_check('a port that is closed', [ "base_url = 'http://127.0.0.1:1'" ],
	'preload+ settings+ credentials+ resolve+ connect- guard+', qr/could not connect/);
is_check('a port that speaks no TLS', [ "base_url = '" . $sandbox->{url} =~ s/http/https/r . "'" ],
	'preload+ settings+ credentials+ resolve+ connect+ tls- guard+', qr/speak TLS/);
is_check('a port that does not answer', [ "base_url = 'https://127.0.0.1:$dumb_port'", "connect_timeout = '100ms'" ],
	'preload+ settings+ credentials+ resolve+ connect+ tls- guard+', qr/connect_timeout/);
is_check('a certificate that is not trusted', [ "base_url = '$tls->{url}'" ],
	'preload+ settings+ credentials+ resolve+ connect+ tls- guard+', qr/certificate.*\n.*ca_file/s);
is_check('a bundle without a certificate', [ "base_url = '$tls->{url}'", "ca_file = '$directory/key.pem'" ],
	'preload+ settings+ credentials+ resolve+ connect+ tls- guard+', qr/could not be loaded.*\n.*ca_file/);
is_check('a clock that is wrong',
	[ "base_url = '" . $sandbox->script('422,header=Date:Sun%2C%2006%20Nov%201994%2008:49:37%20GMT') . "'" ],
	'preload+ settings+ credentials+ resolve+ connect+ tls+ clock- authorize+ guard+', qr/ \d+ s behind.*\n.*NTP/);
is_check('a clock that is wrong, the other way',
	[ "base_url = '" . $sandbox->script('422,header=Date:Fri%2C%2031%20Dec%209999%2023:59:59%20GMT') . "'" ],
	'preload+ settings+ credentials+ resolve+ connect+ tls+ clock- authorize+ guard+', qr/ \d+ s ahead.*\n.*NTP/);
is_check('a wrong token', [ "api_token = 'PTwrong'" ],
	'preload+ settings+ credentials+ resolve+ connect+ tls+ clock+ authorize- guard+', qr/did not accept the credentials/);
is_check('a scope that is lacking', [ "base_url = '" . $sandbox->script('403') . "'" ],
	'preload+ settings+ credentials+ resolve+ connect+ tls+ clock+ authorize- guard+', qr/denied.*\n.*scope/);
is_check('a 201 to an empty list', [ "base_url = '" . $sandbox->script('201,token=a,refresh=b') . "'" ],
	'preload+ settings+ credentials+ resolve+ connect+ tls+ clock+ authorize+ guard+');
is_check('a space that does not exist', [ "base_url = '" . $sandbox->script('404') . "'" ],
	'preload+ settings+ credentials+ resolve+ connect+ tls+ clock+ authorize- guard+', qr/nothing at the URL/);
is_check('an API that limits the rate', [ "base_url = '" . $sandbox->script('429') . "'" ],
	'preload+ settings+ credentials+ resolve+ connect+ tls+ clock+ authorize- guard+', qr/limited the rate/);
is_check('an API that fails', [ "base_url = '" . $sandbox->script('500') . "'" ],
	'preload+ settings+ credentials+ resolve+ connect+ tls+ clock+ authorize- guard+', qr/failed to process/);
is_check('an API that does not answer', [ "base_url = '" . $sandbox->script('hang') . "'", "timeout = '200ms'" ],
	'preload+ settings+ credentials+ resolve+ connect+ tls+ authorize- guard+', qr/timed out/);

# ten 429s suspend requests
my $limited = "base_url = '" . $sandbox->script('429,id=limited') . "'";
run_session($node, "SET sw_guest_token.$limited", 'SET sw_guest_token.max_retries = 0', ($ONE) x 10);
is_check('an API that limits the rate of everybody', [$limited],
	'preload+ settings+ credentials+ resolve+ connect+ tls+ clock+ authorize- guard-', qr/limited the rate.*suspended/s);

# targets beyond those that have a guard
is_check('a proxy that is not there', [ "base_url = 'https://127.0.0.1:$dumb_port'", "proxy = 'http://127.0.0.1:1'" ],
	'preload+ settings+ credentials+ resolve+ connect- guard+', qr/could not connect.*\n.*reach the proxy/);
is_check('a host that a proxy is to be told', [ "base_url = 'https://no-such-host.invalid'",
		"proxy = 'socks4://" . $sandbox->{url} =~ s{^http://}{}r . "'" ],
	'preload+ settings+ credentials+ resolve- guard+', qr/could not connect.*\n.*DNS/i);

# a slow API, for which as many sessions wait as may
$sandbox->reset;
my $slow = "SET sw_guest_token.base_url = '" . $sandbox->script('201,delay=1500-then-hang-then-422') . "'";
$node->append_conf('postgresql.conf', 'sw_guest_token.max_sessions = 1');
$node->restart;
run_session($node, $slow, $ONE);
my $waiting = session($node, $slow, $ONE);
$sandbox->journal(2);
is_check('too many sessions', [ $slow =~ s/^SET sw_guest_token\.//r ],
	'preload+ settings+ credentials+ resolve+ connect+ tls+ clock+ authorize+ guard-', qr/is slow.*turned away/s);
$waiting->{process}->kill_kill;

# without preloading
my $bare = start_server('bare', "shared_preload_libraries = ''\n");
use_sandbox($bare, $sandbox);
$bare->append_conf('postgresql.conf', "sw_guest_token.api_token = ''\nsw_guest_token.api_token_file = '$directory/closed'");
append_to_file("$directory/closed", 'PTsandbox');
chmod 0600, "$directory/closed";
$bare->restart;
($node, my $preloaded) = ($bare, $node);
is_check('a library that is not preloaded', [],
	'preload- settings+ credentials+ resolve+ connect+ tls+ clock+ authorize+ guard+', qr/every role.*\n.*shared_preload_libraries/);
$bare->append_conf('postgresql.conf', "session_preload_libraries = 'sw_guest_token'");
$bare->restart;
is_check('a library that sessions preload', [],
	'preload- settings+ credentials+ resolve+ connect+ tls+ clock+ authorize+ guard+');
$node = $preloaded;

is_deeply([ grep { !$seen{$_} } sort keys %seen ], [], 'the document shows nothing else');

# the check uses a connection of its own, and leaves the session as it was
$sandbox->reset;
my $session = run_session($node, $ONE, "SELECT count(*) FROM sw_guest_token_check() WHERE ok", $ONE,
	"SET sw_guest_token.api_token = ''", 'SELECT count(*) FROM sw_guest_token_check() WHERE ok', $ONE,
	'RESET sw_guest_token.api_token', $ONE);
is($session->{out}, "token true\n9\ntoken true\n7\ntoken true\n", 'calls work before and after a check');
is(sql_state($session->{err}), '55000', 'with settings that are judged anew');

# it can be cancelled, like any call
$sandbox->reset;
$session = session($node, "SET sw_guest_token.timeout = '1h'",
	"SET sw_guest_token.base_url = '" . $sandbox->script('hang') . "'", 'SELECT * FROM sw_guest_token_check()');
$sandbox->journal(1);
wait_for_call($node);
$node->safe_psql('postgres',
	"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'");
is(sql_state($session->finish->{err}), '57014', 'a check can be cancelled');

done_testing();
