# What docs/operations.md tells a DBA to run: who uses the extension, how to turn it
# off at once, and what goes with it when it is removed.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use SwTest;
use Test::More;

my $directory = PostgreSQL::Test::Utils::tempdir;
my $file = "$directory/signalwire_token";
my $node = start_server('operations', "sw_guest_token.api_token_file = '$file'\n");
my $sandbox = start_sandbox();
my $text = slurp_file("$FindBin::RealBin/../docs/operations.md");

append_to_file($file, 'PTsandbox');
chmod 0600, $file;
use_sandbox($node, $sandbox);

# The one block of SQL that matches this.
sub block
{
	my ($pattern) = @_;
	my @found = grep { /$pattern/ } $text =~ /^```sql\n(.*?)^```$/msg;

	is(scalar @found, 1, "the document has one block with $pattern");
	return $found[0];
}

# The rows of a query, sorted.
sub rows
{
	my ($query) = @_;

	return join "\n", sort split /\n/, $node->safe_psql('postgres', $query);
}

my $issue = "sw_create_guest_token('{$ADDRESS}')";

$node->safe_psql('postgres', <<"EOQ");
CREATE ROLE app;
CREATE ROLE member IN ROLE app;
CREATE ROLE writer;
GRANT EXECUTE ON FUNCTION sw_create_guest_token, sw_refresh_guest_token TO app;

CREATE TABLE guest (id int PRIMARY KEY, addresses uuid[], token text, refresh_token text);
CREATE TRIGGER issue_token BEFORE INSERT OR UPDATE ON guest FOR EACH ROW
	EXECUTE FUNCTION sw_guest_token_trigger('addresses', 'token', 'refresh_token');
GRANT INSERT (id, addresses) ON guest TO writer;

CREATE VIEW issued AS SELECT token FROM $issue;
CREATE TABLE pair (id int, pair sw_guest_token, token text DEFAULT ($issue).token);
CREATE FUNCTION in_text() RETURNS text LANGUAGE sql AS 'SELECT token FROM sw_try_create_guest_token(\$\${$ADDRESS}\$\$)';
CREATE FUNCTION in_capitals() RETURNS text LANGUAGE sql AS 'SELECT token FROM SW_TRY_CREATE_GUEST_TOKEN(NULL)';
CREATE FUNCTION parsed() RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT token FROM $issue; END;
CREATE FUNCTION other() RETURNS text LANGUAGE sql AS 'SELECT \$\$sw\$\$';
EOQ

#
# Who uses it
#

is(rows(block('may_call')), <<'EOR' =~ s/\n\z//r, 'the roles that may call it, and what');
app|sw_create_guest_token, sw_refresh_guest_token
member|sw_create_guest_token, sw_refresh_guest_token
EOR
is(rows(block('what_calls_it')), <<'EOR' =~ s/\n\z//r, 'what calls it');
default value for column token of table pair
function in_capitals()
function in_text()
function parsed()
rule _RETURN on view issued
trigger issue_token on table guest
EOR
is(sql_state(run_session($node, 'SET ROLE writer', $ONE)->{err}), '42501', 'who may only write to the table may not call');
is(run_session($node, 'SET ROLE writer', "INSERT INTO guest VALUES (1, '{$ADDRESS}')")->{err}, '', 'but may write');
is($node->safe_psql('postgres', 'SELECT token > $$$$ FROM guest'), 't', 'and gets a token');

#
# Turn it off
#

# While the first request of a batch is held, the file is moved away; then another
# session sends the request that the sandbox is waiting for.
my $held = 'SET sw_guest_token.base_url = \'' . $sandbox->script('hold') . "'";
my $batch = session($node, $held, 'SET sw_guest_token.max_concurrency = 1', 'SELECT count(token) FROM ' . batch_of(3));

wait_for_call($node);
rename $file, "$file.off" or die "could not rename $file: $!";
is(run_session($node, $held, 'SET sw_guest_token.api_token_file = \'\'', $ONE)->{out}, "token true\n", 'the batch may go on');
is($batch->finish->{out}, "3\n", 'and does, with the token that it has read');

my $before = $sandbox->attempts;
my $insert = "INSERT INTO guest VALUES (2, '{$ADDRESS}')";

is(sql_state(run_session($node, $ONE)->{err}), '55000', 'without its file a call fails');
is(sql_state(run_session($node, 'SELECT * FROM sw_try_create_guest_token(NULL)', $insert)->{err}),
	'55000', 'and so does a trigger');
$node->safe_psql('postgres', "ALTER TABLE guest DISABLE TRIGGER issue_token; $insert");
is($sandbox->attempts, $before, 'and nothing is sent');

rename "$file.off", $file or die "could not rename $file.off: $!";
is(run_session($node, $ONE)->{out}, "token true\n", 'with the file it works again');
$node->safe_psql('postgres', 'ALTER TABLE guest ENABLE TRIGGER issue_token; UPDATE guest SET id = 3 WHERE id = 2');
is($node->safe_psql('postgres', 'SELECT token > $$$$ FROM guest WHERE id = 3'), 't', 'and a row that has no token gets one');

my ($off) = $text =~ /`ALTER SYSTEM (SET sw_guest_token\.base_url = .*?)`/;

$before = $sandbox->attempts;
is(sql_state(run_session($node, $off, $ONE)->{err}), '55000', 'a URL that is none turns it off, too');
is($sandbox->attempts, $before, 'and nothing is sent');

my $waiting = session($node, 'SET sw_guest_token.base_url = \'' . $sandbox->script('hang') . "'", $ONE);

wait_for_call($node);
like($node->safe_psql('postgres', block('pg_cancel_backend')), qr/^\d+\|t$/, 'the session that waits is cancelled');
is(sql_state($waiting->finish->{err}), '57014', 'which ends its call');

#
# Remove
#

$node->safe_psql('postgres', <<'EOQ');
ALTER ROLE app SET sw_guest_token.timeout = '3s';
ALTER DATABASE postgres SET sw_guest_token.max_retries = 1;
ALTER ROLE app IN DATABASE postgres SET sw_guest_token.space_name = 'example';
ALTER FUNCTION other() SET sw_guest_token.max_concurrency = 1;
ALTER FUNCTION in_text() SET work_mem = '1MB';
GRANT SET ON PARAMETER sw_guest_token.tokens_per_minute TO app;
ALTER SYSTEM SET sw_guest_token.read_ahead = off;
EOQ

$node->append_conf('postgresql.conf', "SW_Guest_Token.space_name = 'example'");
my $settings = rows(block('pg_file_settings'));

is(join("\n", grep { !/\.conf, line/ } split /\n/, $settings), <<'EOR' =~ s/\n\z//r, 'where settings are');
function other()|sw_guest_token.max_concurrency
granted to app|sw_guest_token.tokens_per_minute
role all, database postgres|sw_guest_token.max_retries
role app, database all|sw_guest_token.timeout
role app, database postgres|sw_guest_token.space_name
EOR
like($settings, qr/postgresql\.conf, line \d+\|sw_guest_token\.api_token_file$/m, 'and in the configuration');
like($settings, qr/postgresql\.conf, line \d+\|SW_Guest_Token\.space_name$/m, 'in letters of any case');
like($settings, qr/postgresql\.auto\.conf, line \d+\|sw_guest_token\.read_ahead$/m, 'and what ALTER SYSTEM has set');
unlike($settings, qr/PTsandbox/, 'but not what they are');

$node->safe_psql('postgres', 'INSERT INTO pair SELECT 1, t, t.token FROM ' . $issue . ' t');
like(($node->psql('postgres', 'DROP EXTENSION sw_guest_token'))[2],
	qr/^DETAIL:  (?:.*\n)*?.*column pair of table pair depends on type sw_guest_token$/m, 'what would be lost is listed');
$node->safe_psql('postgres', block('DROP EXTENSION'));
is($node->safe_psql('postgres', 'SELECT * FROM pair') =~ s/eyJ.*/a token/r, '1|a token', 'a column of the type is lost, and text is not');
is($node->safe_psql('postgres', "SELECT string_agg(proname, ' ') FROM pg_proc WHERE proname IN ('in_text', 'parsed')"),
	'in_text', 'a function stays if only its text calls');

done_testing();
