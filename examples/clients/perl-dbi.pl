# Guest tokens with DBD::Pg.

# clients.md
use strict;
use warnings;

use DBD::Pg ':async';
use DBI;

my %TRY_LATER = map { $_ => 1 } qw(08001 08006 53400 58000);

sub one_token
{
	my ($dbh, $addresses) = @_;

	return $dbh->selectrow_hashref(
		'SELECT token, refresh_token FROM sw_create_guest_token(?, expires_in => ?)',
		undef, $addresses, '30 min');
}

# one call after the other, unless the role has read_ahead
sub many_tokens
{
	my ($dbh, $json) = @_;

	return $dbh->selectall_arrayref(
		'SELECT r.id, t.* FROM jsonb_to_recordset(?) AS r(id int, addresses uuid[]),
		   sw_try_create_guest_token(r.addresses) t', { Slice => {} }, $json);
}

sub token_unless_down
{
	my ($dbh, $addresses) = @_;
	my $row = $dbh->selectrow_hashref(
		'SELECT * FROM sw_try_create_guest_token(?, expires_in => ?)',
		undef, $addresses, '30 min');

	return $row unless $row->{error_code};
	return if $TRY_LATER{ $row->{error_code} };
	die "$row->{error_code}: $row->{error}\n";
}

sub token_within
{
	my ($dbh, $addresses, $seconds) = @_;
	my $sth = $dbh->prepare('SELECT token, refresh_token FROM sw_create_guest_token(?)',
		{ pg_async => PG_ASYNC });
	my $end = time() + $seconds;

	$sth->execute($addresses);
	select(undef, undef, undef, 0.02) until $dbh->pg_ready || time() > $end;
	return $sth->fetchrow_hashref if $dbh->pg_ready && $dbh->pg_result;
	$dbh->pg_cancel;
	return;
}
# end

use Test::More;

my $ADDRESS = '3fa85f64-5717-4562-b3fc-2c963f66afa6';

sub connect_as
{
	return DBI->connect("dbi:Pg:", shift, '', { RaiseError => 1, PrintError => 0 });
}

sub fails_with
{
	my ($dbh, $code, $words, $call) = @_;

	eval { $call->() };
	is($dbh->state, $code, "a failure: $code");
	like($@, qr/\Q$words/, "and in words: $words");
	return;
}

print "DBD::Pg $DBD::Pg::VERSION\n";
my $app = connect_as('app');
like(one_token($app, [ $ADDRESS, $ADDRESS ])->{refresh_token}, qr/^eyJ/, 'one token');

# this API answers only when three requests are there, which takes reading ahead
my @rows = sort { $a->{id} <=> $b->{id} } @{ many_tokens(connect_as('ahead'), <<"JSON") };
[{"id": 1, "addresses": ["$ADDRESS"]}, {"id": 2, "addresses": ["$ADDRESS"]},
 {"id": 3, "addresses": ["$ADDRESS"]}, {"id": 4, "addresses": []}]
JSON
is(join(' ', map { "$_->{id}:" . ($_->{error_code} // substr $_->{token}, 0, 3) } @rows),
	'1:eyJ 2:eyJ 3:eyJ 4:22023', 'many tokens');

like(token_unless_down($app, [$ADDRESS])->{token}, qr/^eyJ/, 'a token, because all is well');
my $down = connect_as('down');
$down->begin_work;
$down->do('INSERT INTO visit DEFAULT VALUES');
is(token_unless_down($down, [$ADDRESS]), undef, 'none in an outage');
$down->commit;
is($down->selectrow_array('SELECT count(*) FROM visit'), 1, 'what was stored outlives it');
fails_with($app, '22023', 'addresses must have 1 to 10 elements', sub { one_token($app, []) });
ok(!eval { token_unless_down($app, []); 1 }, 'a wrong request is an error');
like($@, qr/^22023: addresses must have 1 to 10 elements$/, 'which says why');

my $slow = connect_as('slow');
is(token_within($slow, [$ADDRESS], 0), undef, 'no token in time');
is($slow->selectrow_array('SELECT 1'), 1, 'and the connection is free again');
like(token_within($app, [$ADDRESS], 60)->{token}, qr/^eyJ/, 'one in time');

my $call = 'SELECT * FROM sw_create_guest_token(?, ?)';
fails_with($app, '22003', 'is out of range for type integer',
	sub { $app->selectrow_array($call, undef, [$ADDRESS], 1900000000000) });
fails_with($app, '22P02', qq(malformed array literal: "$ADDRESS"),
	sub { $app->selectrow_array($call, undef, $ADDRESS, undef) });
like($app->selectrow_array('SELECT sw_create_guest_token(?)', undef, [$ADDRESS]),
	qr/^\(eyJ.*,eyJ.*\)$/, 'text and no columns');
done_testing();
