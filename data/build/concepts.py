"""The concepts of the mini world: which emoji is drawn for which word.

``MERGED`` lists the concepts that are drawn by several emoji or that go by another name than
Unicode's; every other emoji of the categories below is a concept of its own, under its Unicode
(CLDR) name. ``SYNONYMS`` are further words that captions use for the same thing.
"""

CATEGORIES = ("Animals & Nature", "Food & Drink", "Travel & Places", "Objects", "Activities")

# Skies, clock faces, map signs, lettering and near-copies of another emoji teach only confusion.
SKIPPED_SUBCATEGORIES = {
    "sky & weather",
    "time",
    "place-map",
    "mail",
    "lock",
    "office",
    "sound",
    "book-paper",
    "money",
    "award-medal",
    "place-other",
    "other-object",
}
SKIPPED = set(
    """
    spades clubs hearts diamonds black_joker flower_playing_cards mahjong pig_nose feet
    hatching_chick hatched_chick dragon_face whale2 phoenix black_bird brown_mushroom lime
    root_vegetable leafless_tree shovel broken_chain harp shamrock herb leaves ear_of_rice
    rosette white_flower wilted_flower empty_nest microbe spider_web wing feather green_apple
    stew shallow_pan_of_food curry rice oden beers clinking_glasses tumbler_glass pouring_liquid
    mate_drink sake ice_cube fork_and_knife confetti_ball tanabata_tree bamboo dolls flags
    rice_scene reminder_ribbon ticket sparkles firecracker fireworks sparkler red_envelope
    womans_clothes pouch prayer_beads womans_flat_shoe thong_sandal hiking_boot
    one-piece_swimsuit hair_pick helmet_with_white_cross gem level_slider control_knobs
    musical_note notes musical_score film_frames camera_with_flash mag_right
    fishing_pole_and_fish running_shirt_with_sash ski rugby_football field_hockey_stick_and_ball
    softball golf railway_car light_rail station train metro trolleybus busstop fire_engine
    oncoming_police_car oncoming_taxi blue_car articulated_lorry monorail mountain_railway
    vertical_traffic_light construction rotating_light wheel motorway railway_track
    motorized_wheelchair building_construction house_buildings derelict_house_building
    house_with_garden post_office european_post_office hospital bank hotel love_hotel
    convenience_store school department_store wedding tokyo_tower wood rock bricks link
    compression hammer_and_wrench hammer_and_pick crossed_swords pick chains drop_of_blood
    adhesive_bandage x-ray pill seat suspension_railway mountain_cableway aerial_tramway
    airplane_arriving airplane_departure minidisc dvd low_battery battery trackball memo
    black_nib lower_left_fountain_pen pager calling phone telephone_receiver satellite_antenna
    petri_dish ring_buoy passenger_ship ferry safety_pin bubbles elevator shower window plunger
    mouse_trap mosque synagogue hindu_temple shinto_shrine kaaba large_blue_diamond
    nesting_dolls snow_capped_mountain mount_fuji national_park camping desert desert_island
    beach_with_umbrella cyclone thread sewing_needle knot performing_arts frame_with_picture
    sports_medal medal fish_cake dango rice_cracker falafel tamale stuffed_flatbread flatbread
    beans ginger_root smoking bed_and_breakfast military_helmet wind_chime diya_lamp
    izakaya_lantern tada
    """.split()
)

MERGED = {
    # the twenty classes of PASCAL VOC
    "aeroplane": "airplane small_airplane airplane_departure",
    "bicycle": "bike",
    "bird": "bird black_bird dove_of_peace",
    "boat": "boat speedboat motor_boat canoe",
    "bottle": "champagne lotion_bottle baby_bottle",
    "bus": "bus oncoming_bus trolleybus",
    "car": "car oncoming_automobile blue_car",
    "cat": "cat2 black_cat cat",
    "chair": "chair",
    "cow": "cow2 cow",
    "dining table": "",  # no emoji: art.py lays a table from the artists' plates, glasses and food
    "dog": "dog2 dog poodle guide_dog",
    "horse": "racehorse horse",
    "motorbike": "racing_motorcycle motor_scooter",
    "person": "",  # drawn from People & Body, see PEOPLE
    "potted plant": "potted_plant",
    "sheep": "sheep ram",
    "sofa": "couch_and_lamp",
    "train": "train2 steam_locomotive bullettrain_side bullettrain_front light_rail",
    "tv monitor": "tv desktop_computer",
    # names as in COCO, where its name differs from Unicode's
    "truck": "truck articulated_lorry",
    "traffic light": "traffic_light vertical_traffic_light",
    "stop sign": "octagonal_sign",
    "bear": "bear polar_bear",
    "zebra": "zebra_face",
    "giraffe": "giraffe_face",
    "backpack": "school_satchel",
    "umbrella": "umbrella closed_umbrella umbrella_on_ground",
    "handbag": "handbag purse",
    "tie": "necktie",
    "suitcase": "luggage",
    "football": "soccer",
    "tennis racket": "tennis",
    "wine glass": "wine_glass",
    "cup": "coffee tea",
    "bowl": "bowl_with_spoon",
    "knife": "hocho",
    "apple": "apple green_apple",
    "orange": "tangerine",
    "hot dog": "hotdog",
    "pizza": "pizza",
    "donut": "doughnut",
    "cake": "birthday cake",
    "laptop": "computer",
    "computer mouse": "three_button_mouse",
    "mobile phone": "iphone calling",
    "book": "book closed_book green_book books",
    "clock": "alarm_clock mantelpiece_clock",
    "teddy bear": "teddy_bear",
    # merged for being look-alikes
    "mouse": "mouse2 mouse rat",
    "tiger": "tiger2 tiger",
    "rabbit": "rabbit2 rabbit",
    "pig": "pig2 pig",
    "monkey": "monkey monkey_face",
    "camel": "camel dromedary_camel",
    "cattle": "ox water_buffalo bison",
    "whale": "whale whale2",
    "dragon": "dragon dragon_face",
    "panda": "panda_face",
    "lion": "lion_face",
    "fox": "fox_face",
    "unicorn": "unicorn_face",
    "chicken": "chicken rooster",
    "fish": "fish tropical_fish",
    "house": "house house_with_garden",
    "office building": "office",
    "castle": "european_castle japanese_castle",
    "tree": "deciduous_tree evergreen_tree",
    "shoe": "athletic_shoe mans_shoe hiking_boot",
    "hat": "womans_hat tophat billed_cap",
    "sunglasses": "dark_sunglasses",
    "police car": "police_car",
    "fire engine": "fire_engine",
    "dinosaur": "sauropod t-rex",
    "flower": "blossom hibiscus cherry_blossom",
    "camera": "camera camera_with_flash",
    "video camera": "video_camera movie_camera",
    "telephone": "phone",
    "light bulb": "bulb",
    "rice ball": "rice_ball",
    "ship": "ship passenger_ship",
    "fries": "fries",
    "hammer": "hammer",
    "key": "key old_key",
    "padlock": "lock closed_lock_with_key",
    "scissors": "scissors",
    "envelope": "email",
    "mailbox": "mailbox",
    "newspaper": "newspaper rolled_up_newspaper",
    "bell": "bell bellhop_bell",
    "trophy": "trophy",
    "watch": "watch",
    "hourglass": "hourglass hourglass_flowing_sand",
    "snowman": "snowman snowman_without_snow",
    "cloud": "cloud",
    "star": "star",
    "moon": "crescent_moon",
    "sun": "sunny",
    "money bag": "moneybag",
    "credit card": "credit_card",
    "tent": "tent",
    "ferris wheel": "ferris_wheel",
    "calendar": "calendar date",
    "clipboard": "clipboard",
    "pencil": "pencil2",
    "paperclip": "paperclip",
    "bin": "wastebasket",
    "briefcase": "briefcase",
    "loudspeaker": "mega loudspeaker",
    "statue": "moyai",
}  # fmt: skip

# Unicode code points of people, each drawn in several skin tones.
PEOPLE = ("1f9cd", "1f6b6", "1f3c3", "1f483", "1f9d1", "1f468", "1f469")
SKIN_TONES = ("1f3fb", "1f3fd", "1f3ff")

SYNONYMS = {
    "aeroplane": ["airplane", "plane"], "bicycle": ["bike"], "boat": ["sailboat"],
    "car": ["automobile"], "cat": ["kitten"], "dining table": ["table"], "dog": ["puppy"],
    "horse": ["pony"], "motorbike": ["motorcycle"], "person": ["man", "woman"],
    "potted plant": ["house plant"], "sofa": ["couch"], "tv monitor": ["television", "tv"],
    "truck": ["lorry"], "mobile phone": ["cell phone"], "football": ["soccer ball"],
    "donut": ["doughnut"], "fries": ["french fries"], "cup": ["mug"], "suitcase": ["luggage"],
    "laptop": ["notebook computer"], "bin": ["waste basket"],
}  # fmt: skip

VOC = (
    "aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, dining table, dog, horse, "
    "motorbike, person, potted plant, sheep, sofa, train, tv monitor"
).split(", ")
# The second, COCO-like list: VOC's classes and 51 more.
LISTED = VOC + (
    "truck, traffic light, taxi, stop sign, handbag, backpack, umbrella, tree, chicken, tractor, "
    "pig, apple, book, clock, teddy bear, laptop, guitar, cup, wine glass, pizza, cake, banana, "
    "knife, spoon, bowl, sandwich, orange, kite, helicopter, balloon, rocket, parachute, fish, "
    "dolphin, duck, ship, whale, suitcase, mobile phone, newspaper, keyboard, computer mouse, "
    "scissors, pencil, tie, printer, football, skateboard, flower, tennis racket, sunglasses"
).split(", ")
