# Requests carry what was asked for, and the tokens match them.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use JSON::PP;
use PostgreSQL::Test::Utils;
use SwTest;
use Test::More;

my $node = start_server('requests');
my $sandbox = start_sandbox();
use_sandbox($node, $sandbox);

# all four fields
my $expire_at = time + 600;
my ($token, $refresh_token) = split /\|/,
  $node->safe_psql('postgres',
	"SELECT token, refresh_token FROM sw_create_guest_token('{AAAAAAAA-1111-1111-1111-111111111111,$ADDRESS,$ADDRESS}', $expire_at, 'us-central', 'us-central')"
  );
my ($request) = @{ $sandbox->journal->{requests} };
is($request->{method}, 'POST', 'the method is POST');
is($request->{path}, '/api/fabric/guests/tokens', 'the path is the API\'s');
is($request->{headers}{'content-type'}, 'application/json', 'the content type is JSON');
is($request->{headers}{expect}, undef, 'no 100-continue is asked for');
is($request->{headers}{'accept-encoding'}, undef, 'no compression is asked for');
like($request->{headers}{'user-agent'},
	qr{^sw_guest_token/\d+(?:\.\d+)+ PostgreSQL/\d+\S+\z}, 'the user agent tells the versions');
ok($request->{authorized}, 'the credentials are sent');
is_deeply(
	decode_json($request->{body}),
	{   allowed_addresses =>
		  [ 'aaaaaaaa-1111-1111-1111-111111111111', $ADDRESS, $ADDRESS ],
		expire_at => $expire_at,
		region => 'us-central',
		ch => 'us-central' },
	'addresses go out in lower case, duplicates included, and all fields with them');

my $issued = $sandbox->decrypt($token);
is($issued->{header}{typ}, 'SAT', 'the token is a guest token');
is($issued->{header}{ch}, 'us-central.signalwire.com', 'the host of ch is in its header');
is($issued->{claims}{exp}, $expire_at, 'the token expires when it was asked to');
is_deeply(
	$issued->{claims}{addresses},
	[ 'aaaaaaaa-1111-1111-1111-111111111111', $ADDRESS, $ADDRESS ],
	'the token is for the addresses that were asked for');
is($sandbox->decrypt($refresh_token)->{header}{typ},
	'Refresh', 'the other one is a refresh token');

# an optional field that is not given is left out
$sandbox->reset;
$node->safe_psql('postgres', $ONE);
($request) = @{ $sandbox->journal->{requests} };
is_deeply(decode_json($request->{body}),
	{ allowed_addresses => [$ADDRESS] },
	'a field that is not given is left out');

# expires_in counts from the call, not from the start of the transaction, in
# PostgreSQL's own arithmetic, and loses its fraction of a second
foreach my $case (
	[ 'hours', '1.5 hours', 'UTC' ],
	[ 'a fraction of a second', '1 minute 0.9 seconds', 'UTC' ],
	[ 'months in a time zone whose clocks change in January and July', '6 months', 'AAA0BBB,M1.1.0,M7.1.0' ],
	[ 'more than an integer holds', '200 years', 'UTC' ])
{
	my ($name, $expires_in, $time_zone) = @$case;
	my $end = "SELECT floor(extract(epoch FROM clock_timestamp() + interval '$expires_in'))";

	$sandbox->reset;
	my ($at_start, $before, undef, $after) = split /\n/,
	  run_session($node, "SET TimeZone = '$time_zone'",
		'BEGIN', $end, 'DO $$ BEGIN PERFORM pg_sleep(1.1); END $$', $end,
		"SELECT 1 FROM sw_create_guest_token('{$ADDRESS}', expires_in => '$expires_in')", $end)->{out};
	($request) = @{ $sandbox->journal->{requests} };
	my $sent = decode_json($request->{body})->{expire_at};
	cmp_ok($before, '>', $at_start, "$name: the transaction began before the call");
	cmp_ok($sent, '>=', $before, "$name: the call counts");
	cmp_ok($sent, '<=', $after, "$name: and no fraction of a second is added");
	like($request->{body}, qr/"expire_at": ?\d+[,}]/, "$name: an integer is sent");
}

# a refresh
$sandbox->reset;
my $new = $node->safe_psql('postgres',
	"SELECT token FROM sw_refresh_guest_token('$refresh_token')");
($request) = @{ $sandbox->journal->{requests} };
is($request->{path}, '/api/fabric/subscribers/tokens/refresh', 'a refresh has its own path');
is_deeply(decode_json($request->{body}),
	{ refresh_token => $refresh_token },
	'and sends the refresh token alone');
is_deeply(
	$sandbox->decrypt($new)->{claims}{addresses},
	[ 'aaaaaaaa-1111-1111-1111-111111111111', $ADDRESS, $ADDRESS ],
	'the new token is for the same addresses');

# text goes out as UTF-8
$sandbox->reset;
$node->psql('postgres',
	qq{SELECT sw_create_guest_token('{$ADDRESS}', region => U&'z\\00FCrich "\\\\ \\+01F600')});
($request) = @{ $sandbox->journal->{requests} };
is(JSON::PP->new->decode($request->{body})->{region},
	"z\x{fc}rich \"\\ \x{1F600}", 'text goes out as UTF-8, quoted as JSON has it');

# invalid arguments are not sent
$sandbox->reset;
$node->psql('postgres', $_)
  foreach ("SELECT sw_create_guest_token(NULL)", "SELECT sw_create_guest_token('{}')",
	"SELECT sw_create_guest_token('{$ADDRESS}', 1)", "SELECT sw_create_guest_token('{$ADDRESS}', expires_in => '-1 hour')",
	"SELECT sw_refresh_guest_token('')",
	"SELECT count(*) FROM sw_create_guest_tokens(array_fill(NULL::sw_guest_token_request, '{3}'))");
is($sandbox->attempts, 0, 'with invalid arguments nothing is sent');

# expanding the composite in the select list calls once per column
$sandbox->reset;
$node->safe_psql('postgres', "SELECT (sw_create_guest_token('{$ADDRESS}')).*");
is($sandbox->attempts, 2, '(f(x)).* calls twice, as the README warns');
$sandbox->reset;
$node->safe_psql('postgres', "SELECT * FROM sw_create_guest_token('{$ADDRESS}')");
is($sandbox->attempts, 1, 'SELECT * FROM f(x) calls once');

# redirects are never followed
$sandbox->reset;
my $result = run_session($node,
	"SET sw_guest_token.base_url = '"
	  . $sandbox->script('302,location=' . ($sandbox->{url} =~ s{/}{%2F}gr) . '%2F')
	  . "'", $ONE);
is(sql_state($result->{err}), '08P01', 'a redirect is an unexpected status');
is($sandbox->attempts, 1, 'and is not followed');

done_testing();
