"""Operations whose best form depends on the platform; nothing else knows the platform."""
