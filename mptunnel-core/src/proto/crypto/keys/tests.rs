// SPDX-License-Identifier: BSD-2-Clause
use super::*;

struct Fixed(u8);

impl Entropy for Fixed {
    fn fill(&mut self, out: &mut [u8]) {
        out.fill(self.0);
    }
}

const B64_OF_7: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

#[test]
fn text_and_bytes_of_a_key_stand_for_each_other() {
    let psk = Psk::from_base64(B64_OF_7).unwrap();
    let own = StaticSecret::from_base64(B64_OF_7).unwrap();
    let public = PublicKey::from_base64(B64_OF_7).unwrap();

    assert_eq!((psk.expose(), psk.to_base64().as_str()), (&[7; 32], B64_OF_7));
    assert_eq!((own.expose(), own.to_base64().as_str()), (&[7; 32], B64_OF_7));
    assert_eq!((public.as_bytes(), public.to_string().as_str()), (&[7; 32], B64_OF_7));
    assert_eq!(format!("{public:?}"), format!("PublicKey({B64_OF_7})"));
}

#[test]
fn what_is_not_a_key_is_refused_with_its_reason() {
    let refused = |text: &str| Psk::from_base64(text).err();
    let zero = Base64::encode_string(&[0; 32]);

    assert_eq!(refused(&B64_OF_7[..43]), Some(KeyError::NotBase64));
    assert_eq!(refused(&format!("{B64_OF_7}\n")), Some(KeyError::NotBase64));
    assert_eq!(refused(&B64_OF_7.replace('H', "!")), Some(KeyError::NotBase64));
    assert_eq!(refused(&B64_OF_7.replace("c=", "d=")), Some(KeyError::NotBase64));
    assert_eq!(refused(""), Some(KeyError::WrongLength { bytes: 0 }));
    for bytes in [31, 33, 64] {
        let text = Base64::encode_string(&vec![7; bytes]);
        assert_eq!(refused(&text), Some(KeyError::WrongLength { bytes }));
    }
    assert_eq!(refused(&zero), Some(KeyError::AllZero));
    assert_eq!(StaticSecret::from_base64(&zero).err(), Some(KeyError::AllZero));
    assert_eq!(PublicKey::from_base64(&zero).err(), Some(KeyError::LowOrder));
}

#[test]
fn no_error_message_repeats_any_part_of_the_text() {
    let error = Psk::from_base64("secret!").err().unwrap();

    assert!(!error.to_string().contains("secret!"));
    assert!(!format!("{error:?}").contains("secret!"));
}

#[test]
fn a_generated_key_is_what_the_entropy_gave() {
    assert_eq!(Psk::generate(&mut Fixed(3)).expose(), &[3; 32]);
    assert_eq!(StaticSecret::generate(&mut Fixed(4)).expose(), &[4; 32]);
}

#[test]
#[should_panic(expected = "random source returns zeros")]
fn a_random_source_that_returns_zeros_makes_no_key() {
    Psk::generate(&mut Fixed(0));
}

#[test]
fn the_public_key_is_that_of_rfc_7748() {
    // RFC 7748, section 6.1: Alice.
    let private = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
    let public = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";

    assert_eq!(StaticSecret::from_base64(private).unwrap().public().to_string(), public);
}

#[test]
fn both_ends_of_a_psk_derive_the_same_set_and_another_psk_another() {
    let [a, b, other] = [1, 1, 2].map(|byte| KeySet::for_psk(&Psk::new([byte; 32]).unwrap()));

    assert_eq!((a.key_id, a.token(9)), (b.key_id, b.token(9)));
    assert_eq!((a.mac1.expose(), a.cookie.expose()), (b.mac1.expose(), b.cookie.expose()));
    assert_ne!(a.key_id, other.key_id);
    assert_ne!(a.mac1.expose(), other.mac1.expose());
    assert_ne!(a.cookie.expose(), other.cookie.expose());
    assert_ne!(a.token(9), other.token(9));
    assert_ne!(a.token(9), a.token(10));
}

#[test]
fn a_client_in_key_mode_derives_all_of_the_servers_set_but_the_tokens() {
    let own = StaticSecret::new([7; 32]).unwrap();
    let (server, client) = (KeySet::for_server(&own), KeySet::for_server_public(&own.public()));

    assert_eq!(client.key_id, server.key_id);
    assert_eq!(client.mac1.expose(), server.mac1.expose());
    assert_eq!(client.cookie.expose(), server.cookie.expose());
    assert_eq!(client.mac1.expose(), mac1_key_of(&own.public()).expose());
    assert!(server.token(1).is_some());
    assert_eq!(client.token(1), None);
}

#[test]
fn a_token_depends_on_the_servers_private_key() {
    // Whoever knows the public key only must not be able to compute tokens from it.
    let own = StaticSecret::new([7; 32]).unwrap();
    let from_public = KeySet::for_psk(&Psk::new(*own.public().as_bytes()).unwrap());

    assert_ne!(KeySet::for_server(&own).token(1), from_public.token(1));
}

#[cfg(feature = "passphrase")]
mod passphrase {
    use super::*;

    #[test]
    fn a_passphrase_below_twelve_characters_is_refused() {
        let refused = |passphrase| Psk::from_passphrase(passphrase, "home").err();

        assert_eq!(refused("elevenchars"), Some(KeyError::PassphraseTooShort { chars: 11 }));
        // Characters count, not bytes.
        assert_eq!(refused("ööööööööööö"), Some(KeyError::PassphraseTooShort { chars: 11 }));
        assert_eq!(refused("twelve chars"), None);
    }

    #[test]
    fn a_passphrase_without_a_tunnel_name_is_refused() {
        let refused = Psk::from_passphrase("twelve chars", "").err();

        assert_eq!(refused, Some(KeyError::NoTunnelName));
    }

    #[test]
    fn passphrase_and_name_both_decide_the_key() {
        let key = |passphrase, name| Psk::from_passphrase(passphrase, name).unwrap();
        let reference = key("correct horse battery staple", "home");

        let expected = Base64::encode_string(reference.expose());
        assert_eq!(expected, "Q6t1s4JxuN1f+3cQfSDXVMTAzL4H3rkNfev21SWw5Yc=");
        assert_ne!(key("correct horse battery staple", "work").expose(), reference.expose());
        assert_ne!(key("correct horse battery stable", "home").expose(), reference.expose());
    }
}
