# Messages in another language, whatever the database's encoding.

use strict;
use warnings;

use File::Basename;
use FindBin;
use lib $FindBin::RealBin;
use PostgreSQL::Test::Utils;
use SwTest;
use Test::More;

# Catalogs are chosen by the locale's name alone: where glibc keeps locales in
# directories, a German one can be had without installing any.
my $locale = 'de_DE.UTF-8';
my $model = '/usr/lib/locale/C.utf8';
$ENV{LOCPATH} = PostgreSQL::Test::Utils::tempdir;
symlink $model, "$ENV{LOCPATH}/$locale" if -d $model;

my $node = start_server('translations', "sw_guest_token.breaker = on\n");
my $makefile = slurp_file(dirname(dirname($node->config_data('--pgxs'))) . '/Makefile.global');
my ($msgfmt) = $makefile =~ /^MSGFMT\s*=\s*(\S+)/m;
$makefile =~ /^enable_nls\s*=\s*yes/m
  or plan skip_all => 'this server was built without translations';
-x ($msgfmt // '')
  or plan skip_all => 'without msgfmt no translations were installed';
$node->psql('postgres', "SET lc_messages = '$locale'") == 0
  or plan skip_all => 'there is no German locale';

my $sandbox = start_sandbox();
use_sandbox($node, $sandbox);
$node->safe_psql('postgres', 'CREATE ROLE ordinary');

# german(SQL...): what a German session shows; is_german() checks that it contains
# each of the texts
sub german
{
	my $session = run_session($node, "SET lc_messages = '$locale'", @_);

	return $session->{out} . $session->{err};
}

sub is_german
{
	my ($name, $statements, @texts) = @_;
	my $shown = german(@$statements);

	ok(index($shown, $_) >= 0, "$name: $_") || diag($shown) foreach @texts;
	return;
}

sub script
{
	return "SET sw_guest_token.base_url = '" . $sandbox->script($_[0]) . "'";
}

is_german('an argument', ["SELECT sw_create_guest_token('{}')"],
	' 22023: addresses muss 1 bis 10 Elemente haben', ' Die Anzahl der Elemente ist 0.');
is_german('a setting', ["SET sw_guest_token.base_url = 'what'", $ONE],
	' 55000: Parameter »sw_guest_token.base_url« kann nicht verwendet werden', ' Er ist keine URL.');
is_german('a hook', ["ALTER ROLE ordinary SET sw_guest_token.api_token = 'x'"],
	' 55000: Parameter »sw_guest_token.api_token« kann nicht für eine Rolle, ', ' Jede Rolle könnte ihn ');
is_german('a status', [ script('401'), $ONE ],
	' 28000: SignalWire hat die Zugangsdaten nicht akzeptiert', ' Prüfen Sie den Space, ');
is_german('the words of the API stay its own', [ script('422'), $ONE ],
	' 22023: SignalWire hat die Anfrage zurückgewiesen: The addresses ');
is_german('a response', [ script('201,token=%C3%A4'), $ONE ],
	' 08P01: Antwort von SignalWire ist ungültig', ' Das Element »token« ist kein Token.');
is_german('our words in the place of libcurl\'s', [ script('endless'), $ONE ],
	' Versuch 1: es kam zu viel.');
is_german('a time limit', [ script('hang'), "SET sw_guest_token.timeout = '100ms'", $ONE ],
	' 08006: Zeitüberschreitung bei der Anfrage an SignalWire',
	' »sw_guest_token.timeout« (100 ms) lief ab, während auf die Antwort gewartet wurde, nach 1 Versuch; es kam kein Status.');
is_german('the guard', [ script('503'), 'SET sw_guest_token.max_retries = 0', ($ONE) x 6 ],
	' 58000: Anfragen an SignalWire sind ausgesetzt', ' Der letzte Status war 503.  Die nächste Probeanfrage ist in ',
	' Versuchen Sie es später noch einmal.');
is_german('a header', [q{SELECT sw_token_header('x')}],
	' 22023: Token hat keinen gültigen Header', ' Es enthält keinen Punkt.');
is_german('a trigger',
	[   'CREATE TEMP TABLE t (a uuid[], b uuid, c text)',
		q{CREATE TRIGGER t BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION sw_guest_token_trigger('a', 'b', 'c')},
		'INSERT INTO t DEFAULT VALUES' ],
	' 42804: Spalte »b« hat Typ uuid', ' Der Typ muss text oder character varying ohne Länge sein.');
is_german('a row of a batch',
	["SELECT error_code, error FROM sw_create_guest_tokens('{NULL}')"],
	'22004|Anfrage darf nicht NULL sein');
is_german('the check, whose steps keep their names', ['SELECT step, detail FROM sw_guest_token_check()'],
	'credentials|Ein API-Token ist vorhanden.', 'authorize|Die API akzeptiert die Zugangsdaten.');

# a database with another encoding, which was not yet known when the library was loaded
$node->safe_psql('postgres',
	"CREATE DATABASE latin1 ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
$node->safe_psql('latin1', 'CREATE EXTENSION sw_guest_token');
my ($rc, $out, $err) = $node->psql('latin1',
	"SET client_encoding = 'UTF8'; SET lc_messages = '$locale'; SELECT sw_token_header('x')");
like($err, qr/: +Token hat keinen gültigen Header\n.*: +Es enthält keinen Punkt\./,
	'a message comes in the encoding of the database');

# a session can change its language
$out = german(q{SELECT sw_token_header('x')}, "SET lc_messages = 'C'", q{SELECT sw_token_header('x')});
like($out, qr/Token hat keinen gültigen Header.*token has no valid header/s, 'both languages in one session');

done_testing();
