# The primary of a streaming pair is killed while a worker of recipe 4 has a
# batch in flight: its standby takes over, no request is lost, and at most that
# one batch is issued twice.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use SwTest;
use Test::More;

my $BATCH = 10;

# Two requests at a time, so that it is known which ones are answered.
my $primary = start_server('primary', "sw_guest_token.max_concurrency = 2\n", allows_streaming => 1);
my $sandbox = start_sandbox();
use_sandbox($primary, $sandbox);
$primary->safe_psql('postgres', $_) foreach blocks_of('Recipes'), (blocks_of('4.'))[0];

#
# Synchronous replication
#

my $standby = start_standby($primary, 'standby');
$primary->safe_psql('postgres', "ALTER SYSTEM SET synchronous_standby_names = 'standby'");
$primary->reload;
$primary->poll_query_until('postgres', q{SELECT sync_state = 'sync' FROM pg_stat_replication})
  or die 'the standby is not a synchronous one';

# Two batches and four requests of the third are answered; all that follow hang.
# Nobody tells the worker that its server is gone: it notices that the postmaster is.
request_tokens($primary, 35);
my $script = join '-then-', ('201') x (2 * $BATCH + 4), 'hang';
my $worker = start_worker($primary, "SET sw_guest_token.base_url = '" . $sandbox->script($script) . "'");
$sandbox->journal(2 * $BATCH + 6);
$primary->kill9;
$worker->finish;

is($standby->safe_psql('postgres', "SELECT count(*) FROM token_request"), 35,
	'the primary is killed in the middle of a batch: its standby has all requests');
$standby->promote;
is(state_of($standby), '15 open, 20 issued', 'those of whole batches with their tokens, those of that batch as before');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM token_request WHERE next_try IS NOT NULL AND attempts = 0 AND error_code IS NULL'),
	15, 'so that they are due');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM (SELECT FROM token_request FOR UPDATE SKIP LOCKED) s'),
	35, 'and none is locked');

# The new primary waits for no standby.
$standby->safe_psql('postgres', 'ALTER SYSTEM RESET synchronous_standby_names');
$standby->reload;
$standby->poll_query_until('postgres', q{SELECT current_setting('synchronous_standby_names') = ''});
is(start_worker($standby)->finish->{err}, '', 'a worker on the new primary comes to its end');
is(state_of($standby), '0 open, 35 issued', 'after which each request has its token');
have_own_tokens($standby, 35);
is(join(' ', issued_again()), '4 of the last batch', 'four tokens were issued twice, all of the batch that was in flight');
is($standby->safe_psql('postgres', 'SELECT issued FROM sw_guest_token_stat'), 15,
	"the new primary has counted its own calls, not the old one's");

#
# Asynchronous replication
#

# The standby has the requests, but not the tokens that were issued for them.
$sandbox->reset;
my $second = start_standby($standby, 'second');
request_tokens($standby, 15);
$standby->wait_for_catchup($second);
$second->stop;
$worker = start_worker($standby)->finish;
is($worker->{err} . state_of($standby), '0 open, 50 issued', 'without its standby a primary goes on, if replication is asynchronous');
request_tokens($standby, 3);
$standby->stop('immediate');
$second->start;
$second->promote;
is(state_of($second), '15 open, 35 issued', 'then the last commits are lost: tokens are, and so are requests');
is(start_worker($second)->finish->{err}, '', 'a worker on the new primary comes to its end');
is(state_of($second), '0 open, 50 issued', 'and issues what has lost its token');
have_own_tokens($second, 50);

# The first primary knows nothing about all that.  (Starting it also removes the
# shared memory that the killed postmaster left behind.)  As long as nobody has reaped
# that postmaster, the new one would think that its lock files are still in use.
is(unlink($primary->data_dir . '/postmaster.pid', $primary->host . '/.s.PGSQL.' . $primary->port . '.lock'),
	2, 'the killed primary has left two lock files');
$primary->start;
is(state_of($primary), '15 open, 20 issued', 'an old primary that comes back as one would issue them again');

done_testing();

# A worker of recipe 4, in batches of $BATCH, with a superuser's settings.
sub start_worker
{
	my ($node, @settings) = @_;

	return session($node, @settings, 'SET SESSION AUTHORIZATION token_worker', "CALL issue_tokens($BATCH)");
}

sub start_standby
{
	my ($node, $name) = @_;
	my $new = PostgreSQL::Test::Cluster->new($name);

	$node->backup($name);
	$new->init_from_backup($node, $name, has_streaming => 1);
	$new->start;
	return $new;
}

# New customers with a request for one address each.
sub request_tokens
{
	my ($node, $n) = @_;

	$node->safe_psql('postgres', "WITH c AS (INSERT INTO customer (name) SELECT i FROM generate_series(1, $n) i RETURNING id)
		INSERT INTO token_request (customer_id, addresses) SELECT id, ARRAY[gen_random_uuid()] FROM c");
	return;
}

sub state_of
{
	my ($node) = @_;

	return $node->safe_psql('postgres', q{SELECT count(*) FILTER (WHERE token IS NULL) || ' open, '
		|| count(*) FILTER (WHERE token IS NOT NULL AND next_try IS NULL) || ' issued' FROM token_request});
}

sub have_own_tokens
{
	my ($node, $n) = @_;
	my $good = grep {
		my ($address, $token) = split /\|/;
		$sandbox->decrypt($token)->{claims}{addresses}[0] eq $address
	} split /\n/, $node->safe_psql('postgres', 'SELECT addresses[1], token FROM token_request WHERE token IS NOT NULL');

	is($good, $n, 'for its own address');
	return;
}

# How many addresses got more than one token, and whether they belong to the batch
# that was in flight.
sub issued_again
{
	my %issued;
	my @asked = map { [ JSON::PP::decode_json($_->{body})->{allowed_addresses}[0], $_->{status} // 0 ] }
	  @{ $sandbox->journal->{requests} };
	my %last = map { $_->[0] => 1 } @asked[ 2 * $BATCH .. 2 * $BATCH + 5 ];

	$issued{ $_->[0] }++ foreach grep { $_->[1] == 201 } @asked;
	my @again = grep { $issued{$_} > 1 } keys %issued;
	return (scalar @again, (grep { !$last{$_} } @again) ? 'of any batch' : 'of the last batch');
}

# The SQL blocks of this section of the recipes.
sub blocks_of
{
	my ($title) = @_;
	my ($section) = slurp_file("$FindBin::RealBin/../docs/recipes.md") =~ /^##? \Q$title\E(.*?)(?=^## |\z)/ms;

	return $section =~ /^```sql\n(.*?)^```/msg;
}
