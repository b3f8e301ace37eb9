# Text goes out as UTF-8 and comes back in the database's encoding, whatever
# that is.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use JSON::PP;
use PostgreSQL::Test::Utils;
use SwTest;
use Test::More;

my $node = start_server('encodings');
my $sandbox = start_sandbox();
use_sandbox($node, $sandbox);

# "zürich", "日本", and a character that only UTF-8 has, as hexadecimal UTF-8
my $latin = '7ac3bc72696368';
my $japanese = 'e697a5e69cac';
my $emoji = 'f09f9880';

# in_database(ENCODING, SQL): output and error, both as ASCII
sub in_database
{
	my ($encoding, $sql) = @_;
	my ($rc, $out, $err) = $node->psql(lc $encoding,
		"\\set VERBOSITY verbose\nSET client_encoding = 'SQL_ASCII';\n$sql", on_error_stop => 0);

	return ($out, $err);
}

# The region that arrives, in hexadecimal
sub sent
{
	my $requests = $sandbox->journal->{requests};

	return @$requests ? unpack('H*', JSON::PP->new->utf8->encode([ JSON::PP->new->decode($requests->[-1]{body})->{region} ]))
	  : 'nothing';
}

# The URL of a refusal with this message, in hexadecimal
sub refusal
{
	my $body = unpack('H*', '{"errors":[{"message":"') . $_[0] . unpack('H*', '"}]}');

	return $sandbox->script('422,body=' . $body =~ s/(..)/%$1/gr);
}

my %bytes = (
	UTF8 => { latin => $latin, japanese => $japanese },
	LATIN1 => { latin => '7afc72696368' },
	LATIN9 => { latin => '7afc72696368' },
	EUC_JP => { japanese => 'c6fccbdc' },
	WIN1251 => { cyrillic => 'ccee' },
	SQL_ASCII => { latin => $latin, japanese => $japanese });
my %utf8 = (latin => $latin, japanese => $japanese, cyrillic => 'd09cd0be');

foreach my $encoding (sort keys %bytes)
{
	$node->safe_psql('postgres',
		"CREATE DATABASE " . lc($encoding) . " ENCODING '$encoding' LOCALE 'C' TEMPLATE template0");
	$node->safe_psql(lc $encoding, 'CREATE EXTENSION sw_guest_token');

	my ($out, $err) = in_database($encoding, $ONE);
	is($out, 'token true', "$encoding: a token");

	# arguments
	foreach my $script (sort keys %{ $bytes{$encoding} })
	{
		$sandbox->reset;
		($out, $err) = in_database($encoding,
			"SELECT sw_create_guest_token('{$ADDRESS}', region => convert_from('\\x$bytes{$encoding}{$script}', getdatabaseencoding()))");
		is(sql_state($err), '22023', "$encoding: a region in $script is the API's to judge");
		is(sent(), '5b22' . $utf8{$script} . '225d', "$encoding: and goes out as UTF-8");
	}

	# a message of the server
	foreach my $script (sort keys %utf8)
	{
		my $url = refusal($utf8{$script});
		($out, $err) = in_database($encoding, <<"EOQ");
SET sw_guest_token.base_url = '$url';
DO \$\$
BEGIN
	PERFORM sw_create_guest_token('{$ADDRESS}');
EXCEPTION WHEN invalid_parameter_value THEN
	RAISE NOTICE 'message %', encode(convert_to(substring(SQLERRM FROM 'request: (.*)'), getdatabaseencoding()), 'hex');
END
\$\$;
EOQ
		my ($hex) = $err =~ /message ([0-9a-f]+)/;
		my $expected = $bytes{$encoding}{$script}
		  // ($encoding eq 'UTF8' || $encoding eq 'SQL_ASCII' ? $utf8{$script} : undef);
		if (defined $expected)
		{
			is($hex, $expected, "$encoding: a message in $script is shown in the database's encoding");
		}
		else
		{
			# EUC_JP has Cyrillic as well
			ok($hex =~ /3f/ || $encoding eq 'EUC_JP', "$encoding: of a message in $script what is lacking is a ?");
		}
	}

	# a character that only Unicode's encodings have
	my $url = refusal('61' . $emoji . '62');
	($out, $err) = in_database($encoding, <<"EOQ");
SET sw_guest_token.base_url = '$url';
SELECT sw_create_guest_token('{$ADDRESS}');
EOQ
	my $shown = $encoding =~ /UTF8|SQL_ASCII/ ? pack('H*', $emoji) : '?';
	like($err, qr/request: a\Q$shown\Eb/, "$encoding: an emoji in a message is shown as itself or as a ?");

	# it is not valid in a token
	($out, $err) = in_database($encoding, <<"EOQ");
SET sw_guest_token.base_url = '@{[$sandbox->script('201,token=%F0%9F%98%80')]}';
SELECT sw_create_guest_token('{$ADDRESS}');
EOQ
	is(sql_state($err), '08P01', "$encoding: a token that is not ASCII is none");

	# the header of a token
	my $header = sub {
		my $hex = $_[0];
		return "SELECT sw_token_header(translate(encode('\\x" . unpack('H*', '{"a":"') . $hex . unpack('H*', '"}') . "', 'base64'), E'+/=\\n', '-_') || '.')";
	};
	($out, $err) = in_database($encoding, &$header($emoji));
	is(sql_state($err), $encoding =~ /UTF8|SQL_ASCII/ ? '' : '22P05',
		"$encoding: a header with a character that the encoding lacks");
	($out, $err) = in_database($encoding, &$header(unpack 'H*', '\\u20ac'));
	is(sql_state($err), $encoding =~ /UTF8|LATIN9|WIN1251/ ? '' : '22P05',
		"$encoding: the same, escaped");
}

# bytes that are not UTF-8, in a database that does not check
$sandbox->reset;
my ($out, $err) = in_database('SQL_ASCII', "SELECT sw_create_guest_token('{$ADDRESS}', region => E'z\\xfcrich')");
is(sql_state($err), '22021', 'SQL_ASCII: bytes that are no UTF-8 are refused');
($out, $err) = in_database('SQL_ASCII', "SELECT sw_refresh_guest_token(E'\\xff')");
is(sql_state($err), '22021', 'SQL_ASCII: in a refresh token, too');
($out, $err) = in_database('SQL_ASCII',
	"SELECT error_code FROM sw_create_guest_tokens(ARRAY[ROW('{$ADDRESS}', NULL, NULL, E'\\xff')]::sw_guest_token_request[])");
is($out, '22021', 'SQL_ASCII: in a batch it is a row');
is($sandbox->attempts, 0, 'and nothing is sent');

done_testing();
